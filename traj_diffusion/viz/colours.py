"""The one palette of pictures and player. Agents keep clear of the reds and greens that belong to the lights."""

from traj_diffusion.scene import AgentKind, LightState

EGO = "#e4572e"
KIND = {
    AgentKind.VEHICLE: "#3f6fb5",
    AgentKind.PEDESTRIAN: "#a33fa8",
    AgentKind.CYCLIST: "#0f9184",
    AgentKind.OTHER: "#77757f",
}
KIND_NAME = {
    AgentKind.VEHICLE: "vehicle",
    AgentKind.PEDESTRIAN: "pedestrian",
    AgentKind.CYCLIST: "cyclist",
    AgentKind.OTHER: "other",
}

STOP, CAUTION, GO, UNKNOWN = "#e02b36", "#f2a900", "#1fa651", "#9097a1"
LIGHT = {
    LightState.UNKNOWN: UNKNOWN,
    LightState.ARROW_STOP: STOP,
    LightState.ARROW_CAUTION: CAUTION,
    LightState.ARROW_GO: GO,
    LightState.STOP: STOP,
    LightState.CAUTION: CAUTION,
    LightState.GO: GO,
    LightState.FLASHING_STOP: STOP,
    LightState.FLASHING_CAUTION: CAUTION,
}

# Near to far in time: from deep violet over magenta to amber, even steps in lightness.
TIME = ("#3b1a9c", "#7a1fa6", "#b02a8f", "#d94c6a", "#f0803c", "#f6b40e")
TIME_ON_DARK = ("#8468ff", "#ab5cdc", "#d153ad", "#e8657c", "#f58b4a", "#f9c22f")

PAPER, INK, FAINT_INK = "#fbfaf7", "#20262e", "#69717c"
ASPHALT, LANE, EDGE, DRIVEWAY = "#e7e9ec", "#b9bfc8", "#4b5361", "#f0eee7"
WHITE_LINE, YELLOW_LINE, ZEBRA, BUMP = "#ffffff", "#e0b13a", "#ffffff", "#c9b88f"
STOP_SIGN = "#b3202a"
