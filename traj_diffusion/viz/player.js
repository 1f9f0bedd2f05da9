// State, controls and the loop. `window.player` is what tests and other scripts may read and steer.

const element = (id) => document.getElementById(id);
const stage = element("stage"), ctx = stage.getContext("2d"), tip = element("tip");
const view = { x: 0, y: 0, scale: 8, width: 1, height: 1, ratio: 1 };
const state = { at: 0, run: -1, playing: false, speed: 1, selected: null, pointer: null, dirty: true, still: null };
const toggles = { all: false, plan: false, log: false, hold: false, follow: false };
let data, layers, paths, last, ramp, poses = [];

const tones = new Map();
function tone(name) {
  if (!tones.has(name))
    tones.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name.replaceAll("_", "-")}`).trim());
  return tones.get(name);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  tones.clear();
  paths.futures = null;
  if (ramp) ramp.style.background = `linear-gradient(90deg, ${timeColours().join(",")})`;
  redraw(true);
}

const timeColours = () => data.colours[document.documentElement.dataset.theme === "dark" ? "time_dark" : "time"];

function redraw(ground = false) {
  state.dirty = true;
  if (ground) state.still = null;
}

const seconds = (at) => (at - data.now) * data.dt;
const clock = (at) => `${seconds(at) < -0.05 ? "−" : ""}${Math.abs(seconds(at)).toFixed(1)} s`;

function seek(at) {
  state.at = Math.min(Math.max(at, 0), last);
  const scrub = element("scrub");
  scrub.value = state.at;
  scrub.setAttribute("aria-valuetext", clock(state.at));
  element("clock").textContent = clock(state.at);
  redraw();
}

function play(on) {
  if (on && state.at >= last) seek(0);
  state.playing = on && last > 0;
  const button = element("play");
  button.classList.toggle("playing", state.playing);
  button.setAttribute("aria-label", state.playing ? "Pause" : "Play");
}

function choose(run) {
  state.run = Math.min(Math.max(run, -1), data.runs ? data.runs.count - 1 : -1);
  element("run").value = state.run;
  redraw();
}

function toggle(name, on = !toggles[name]) {
  const button = element(name);
  if (button.disabled) return;
  toggles[name] = on;
  button.setAttribute("aria-pressed", String(on));
  if (name === "follow" && on && state.selected === null) state.selected = data.ego ?? (poses[0] ? poses[0].row : null);
  redraw(true);
}

function zoom(factor, x = view.width / 2, y = view.height / 2) {
  const scale = Math.min(Math.max(view.scale * factor, 0.2), 120);
  view.x += (x - view.width / 2) * (1 / view.scale - 1 / scale);
  view.y -= (y - view.height / 2) * (1 / view.scale - 1 / scale);
  view.scale = scale;
  redraw(true);
}

// Shows whoever is there now; the far ends of trajectories may lie outside.
function fit() {
  let [left, bottom, right, top] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let row = 0; row < data.agents.id.length; row++) {
    const now = stateAt(data, -1, row, data.now);
    if (!now) continue;
    [left, right] = [Math.min(left, now.x), Math.max(right, now.x)];
    [bottom, top] = [Math.min(bottom, now.y), Math.max(top, now.y)];
  }
  if (left > right) [left, bottom, right, top] = [-50, -50, 50, 50];
  [view.x, view.y] = [(left + right) / 2, (bottom + top) / 2];
  view.scale = Math.min(Math.min(view.width / (right - left + 40), view.height / (top - bottom + 40)), 16);
  if (toggles.follow) toggle("follow", false);
  redraw(true);
}

function resize() {
  const box = stage.getBoundingClientRect();
  [view.width, view.height, view.ratio] = [Math.max(box.width, 1), Math.max(box.height, 1), window.devicePixelRatio || 1];
  [stage.width, stage.height] = [Math.round(view.width * view.ratio), Math.round(view.height * view.ratio)];
  redraw(true);
}

function inMetres(context) {
  const scale = view.scale * view.ratio;
  context.setTransform(scale, 0, 0, -scale, view.ratio * view.width / 2 - view.x * scale, view.ratio * view.height / 2 + view.y * scale);
}

// What does not move is drawn once for each view, not once for each frame.
function drawStill() {
  const canvas = state.canvas || (state.canvas = document.createElement("canvas"));
  [canvas.width, canvas.height] = [stage.width, stage.height];
  const still = canvas.getContext("2d"), px = 1 / view.scale;
  still.fillStyle = tone("paper");
  still.fillRect(0, 0, canvas.width, canvas.height);
  inMetres(still);
  drawMap(still, layers, px, tone);
  still.lineCap = "butt";
  still.lineJoin = "round";
  if (toggles.all) {
    paths.runs ||= buildRuns(data);
    still.globalAlpha = Math.max(document.documentElement.dataset.theme === "dark" ? 0.32 : 0.2, 0.8 / Math.sqrt(data.runs.count));
    still.lineWidth = 1.3 * px;
    for (const [colour, path] of paths.runs) {
      still.strokeStyle = colour;
      still.stroke(path);
    }
  }
  if (toggles.plan) {
    paths.futures ||= buildFutures(data, timeColours());
    still.globalAlpha = 0.75;
    still.lineWidth = 1.8 * px;
    for (const { path, colour } of [...paths.futures].reverse()) {
      still.strokeStyle = colour;
      still.stroke(path);
    }
  }
  still.globalAlpha = 1;
  if (toggles.log) {
    paths.log ||= buildLog(data);
    still.lineWidth = 1.2 * px;
    still.strokeStyle = tone("ink");
    still.setLineDash([6 * px, 5 * px]);
    still.stroke(paths.log);
  }
  state.still = canvas;
}

function draw() {
  const px = 1 / view.scale;
  if (toggles.follow && state.selected !== null) {
    const pose = poseAt(data, state.run, state.selected, state.at);
    if (pose && (pose.x !== view.x || pose.y !== view.y)) {
      [view.x, view.y] = [pose.x, pose.y];
      state.still = null;
    }
  }
  if (!state.still) drawStill();
  ctx.setTransform(1, 0, 0, 1, 0, 0);
  ctx.drawImage(state.still, 0, 0);
  inMetres(ctx);
  if (toggles.all && state.at >= data.runs.first) drawGhosts(ctx, data, state.at, px);
  drawTrails(ctx, data, state.run, state.at, px);
  if (toggles.log) drawLogBoxes(ctx, data, state.at, px, tone);
  drawLights(ctx, data, state.at, toggles.hold, px, tone);
  poses = drawAgents(ctx, data, state.run, state.at, px, tone, state.selected);
  ctx.setTransform(view.ratio, 0, 0, view.ratio, 0, 0);
  drawScale(ctx, view.scale, view.width, view.height, tone);
  showTip();
}

function find(x, y) {
  const wx = view.x + (x - view.width / 2) / view.scale, wy = view.y - (y - view.height / 2) / view.scale;
  const reach = 6 / view.scale;
  for (const pose of [...poses].reverse()) {
    const cos = Math.cos(pose.heading), sin = Math.sin(pose.heading), dx = wx - pose.x, dy = wy - pose.y;
    const inside = Math.abs(cos * dx + sin * dy) <= pose.length / 2 + reach && Math.abs(cos * dy - sin * dx) <= pose.width / 2 + reach;
    if (inside) return { pose };
  }
  const count = data.lights.lane.length;
  for (let light = 0; light < count; light++) {
    const apart = Math.hypot(wx - data.lights.xy[light] / 100, wy - data.lights.xy[count + light] / 100);
    const shown = apart <= Math.max(0.7, reach) && lightAt(data, light, state.at, toggles.hold);
    if (shown) return { light, shown };
  }
  return null;
}

function showTip() {
  const found = state.pointer && find(state.pointer.x, state.pointer.y);
  tip.hidden = !found;
  if (!found) return;
  if (found.pose) {
    const { row, speed, length, width } = found.pose;
    const kind = row === data.ego ? `ego ${data.names.kind[data.agents.kind[row]]}` : data.names.kind[data.agents.kind[row]];
    const pace = Number.isFinite(speed) ? `${speed.toFixed(1)} m/s` : "speed not known";
    tip.textContent = `${kind} ${data.agents.id[row]}\n${pace}  ·  ${length.toFixed(1)} × ${width.toFixed(1)} m`;
  } else {
    tip.textContent = `light of lane ${data.lights.lane[found.light]}\n${data.names.light[found.shown.state]}${found.shown.held ? ", held" : ""}`;
  }
  tip.style.left = `${Math.min(state.pointer.x + 14, view.width - tip.offsetWidth - 6)}px`;
  tip.style.top = `${Math.max(state.pointer.y - tip.offsetHeight - 10, 6)}px`;
}

function frame(time) {
  if (state.playing) {
    const elapsed = Math.min((time - (state.clock ?? time)) / 1000, 0.25); // a tab that slept does not leap
    seek(state.at + (elapsed * state.speed) / data.dt);
    if (state.at >= last) play(false);
  }
  state.clock = time;
  if (state.dirty) {
    state.dirty = false;
    draw();
  }
  requestAnimationFrame(frame);
}

function listenToPointer() {
  const fingers = new Map();
  let moved = 0;
  const place = (event) => {
    const box = stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place(event));
    moved = fingers.size > 1 ? 99 : 0;
    state.pointer = place(event);
    redraw();
  });
  stage.addEventListener("pointermove", (event) => {
    const to = place(event), from = fingers.get(event.pointerId);
    state.pointer = to;
    redraw();
    if (!from) return;
    const other = [...fingers].find(([id]) => id !== event.pointerId);
    if (other) {
      const [, fixed] = other;
      zoom(Math.hypot(to.x - fixed.x, to.y - fixed.y) / Math.max(Math.hypot(from.x - fixed.x, from.y - fixed.y), 1), fixed.x, fixed.y);
    } else {
      moved += Math.hypot(to.x - from.x, to.y - from.y);
      if (moved > 4) {
        if (toggles.follow) toggle("follow", false);
        stage.classList.add("moving");
        view.x -= (to.x - from.x) / view.scale;
        view.y += (to.y - from.y) / view.scale;
        redraw(true);
      }
    }
    fingers.set(event.pointerId, to);
  });
  const lift = (event) => {
    if (fingers.delete(event.pointerId) && moved <= 4 && event.type === "pointerup") {
      const found = find(state.pointer.x, state.pointer.y);
      state.selected = found && found.pose ? found.pose.row : null;
      if (state.selected === null && toggles.follow) toggle("follow", false);
    }
    stage.classList.remove("moving");
    redraw();
  };
  stage.addEventListener("pointerup", lift);
  stage.addEventListener("pointercancel", lift);
  stage.addEventListener("pointerleave", () => {
    state.pointer = null;
    redraw();
  });
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { x, y } = place(event);
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), x, y);
  }, { passive: false });
}

function listenToKeys() {
  const swap = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  const actions = {
    " ": () => play(!state.playing),
    ArrowLeft: (event) => seek(Math.ceil(state.at - 1e-6) - (event.shiftKey ? Math.round(1 / data.dt) : 1)),
    ArrowRight: (event) => seek(Math.floor(state.at + 1e-6) + (event.shiftKey ? Math.round(1 / data.dt) : 1)),
    Home: () => seek(0),
    End: () => seek(last),
    ArrowUp: () => choose(state.run - 1),
    ArrowDown: () => choose(state.run + 1),
    "+": () => zoom(1.3),
    "=": () => zoom(1.3),
    "-": () => zoom(1 / 1.3),
    0: fit,
    o: () => toggle("all"),
    p: () => toggle("plan"),
    l: () => toggle("log"),
    h: () => toggle("hold"),
    f: () => toggle("follow"),
    t: swap,
    "?": () => element("keys").showModal(),
  };
  window.addEventListener("keydown", (event) => {
    const target = event.target.tagName, pressing = target === "BUTTON" && event.key === " ";
    if (event.ctrlKey || event.metaKey || event.altKey || target === "SELECT" || pressing || element("keys").open) return;
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action(event);
  });
  const clicks = { play: actions[" "], in: actions["+"], out: actions["-"], fit, theme: swap, help: actions["?"] };
  for (const [id, action] of Object.entries(clicks)) element(id).addEventListener("click", action);
  for (const name of Object.keys(toggles)) element(name).addEventListener("click", () => toggle(name));
  element("scrub").addEventListener("input", (event) => seek(Number(event.target.value)));
  element("run").addEventListener("change", (event) => choose(Number(event.target.value)));
  element("speed").addEventListener("change", (event) => (state.speed = Number(event.target.value)));
}

function fillPage() {
  const here = data.agents.id.map((_, row) => row).filter((row) => stateAt(data, -1, row, data.now));
  const facts = [data.source, `${here.length} agent${here.length === 1 ? "" : "s"}`];
  if (data.runs) facts.push(`${data.runs.count} run${data.runs.count === 1 ? "" : "s"}${data.model ? ` by ${data.model}` : ""}`);
  element("facts").textContent = facts.join("  ·  ");
  const legend = (name, colour, kind = "") => {
    const item = document.createElement("li"), swatch = document.createElement("i");
    swatch.className = kind;
    swatch.style.background = colour;
    item.append(swatch, name);
    element("legend").append(item);
    return swatch;
  };
  if (data.ego !== null) legend("ego", data.colours.ego);
  for (const [kind, name] of Object.entries(data.names.kind))
    if (here.some((row) => row !== data.ego && data.agents.kind[row] === Number(kind))) legend(name, data.colours.kind[kind]);
  if (data.futures) ramp = legend("planned, near to far", "none", "ramp");
  const names = ["Recorded", ...Array.from({ length: data.runs ? data.runs.count : 0 }, (_, run) => `Run ${run + 1}`)];
  element("run").replaceChildren(...names.map((name, i) => new Option(name, String(i - 1))));
  element("scrub").min = 0;
  element("scrub").max = last;
  // The thumb's centre travels from 8 px inside one end to 8 px inside the other.
  element("mark").style.left = `calc(8px + ${last ? data.now / last : 0} * (100% - 16px))`;
  element("all").disabled = !data.runs || !data.runs.count;
  element("plan").disabled = !data.futures;
  element("hold").disabled = !data.lights.lane.length;
}

async function start() {
  data = await decode(element("data").textContent);
  last = data.steps - 1;
  layers = buildMap(data);
  paths = {};
  fillPage();
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light"));
  setTheme(dark.matches ? "dark" : "light");
  resize();
  new ResizeObserver(resize).observe(stage);
  fit();
  choose(0);
  seek(data.now);
  if (data.futures) toggle("plan", true);
  if (data.lights.held) toggle("hold", true);
  listenToPointer();
  listenToKeys();
  requestAnimationFrame(frame);
  window.player = Object.freeze({
    get time() { return seconds(state.at); },
    get rollout() { return state.run; },
    get playing() { return state.playing; },
    get toggles() { return { ...toggles }; },
    get selected() { return state.selected; },
    seek: (time) => seek(data.now + time / data.dt),
    choose,
  });
  document.documentElement.dataset.ready = "";
}

start().catch((error) => {
  const trouble = element("trouble");
  trouble.textContent = `The scene could not be shown: ${error.message}. The player needs Chrome 80, Firefox 113, Safari 16.4 or later.`;
  trouble.hidden = false;
  console.error(error);
});
