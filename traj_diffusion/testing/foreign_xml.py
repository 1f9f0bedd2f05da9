"""Small maps and recordings as OpenDRIVE, SUMO and CommonRoad write them, with answers known on paper."""

import math

_LANE = '<width sOffset="0" a="{}" b="0" c="0" d="0"/>'


def opendrive_xml() -> str:
    """Return two roads that a junction joins, and a winding third one.

    Road 1 leads 100 m east from the origin, at 50 km/h, with a lane of 3.5 m each way, a bicycle lane of 1.5 m and a
    pavement on the right; it rises by 1 % from z = 1. A light stands at its end, a stop sign at its start, a crosswalk
    halfway. Road 2 goes on east from (120, 0) in a left bend of 50 m radius, 3 and 4 join the two.
    """
    east = f"""<road id="1" length="100" junction="-1">
  <link><successor elementType="junction" elementId="9"/></link>
  <type s="0" type="town"><speed max="50" unit="km/h"/></type>
  <planView><geometry s="0" x="0" y="0" hdg="0" length="100"><line/></geometry></planView>
  <elevationProfile><elevation s="0" a="1" b="0.01" c="0" d="0"/></elevationProfile>
  <lanes><laneSection s="0">
    <left><lane id="1" type="driving">{_LANE.format(3.5)}<roadMark sOffset="0" type="solid"/></lane></left>
    <center><lane id="0" type="none"><roadMark sOffset="0" type="broken" color="yellow"/></lane></center>
    <right>
      <lane id="-1" type="driving">{_LANE.format(3.5)}<speed sOffset="0" max="10"/></lane>
      <lane id="-2" type="biking">{_LANE.format(1.5)}</lane>
      <lane id="-3" type="sidewalk">{_LANE.format(2.0)}</lane>
    </right>
  </laneSection></lanes>
  <objects><object id="c" type="crosswalk" s="50" t="0" hdg="0" length="4" width="7"/></objects>
  <signals>
    <signal id="s1" s="98" t="-6" dynamic="yes" orientation="+" type="1000001">
      <validity fromLane="-1" toLane="-1"/>
    </signal>
    <signal id="s2" s="2" t="5" dynamic="no" orientation="-" type="206"/>
    <signal id="s3" s="2" t="5" dynamic="no" orientation="-" type="274"/>
  </signals>
</road>"""
    bend = f"""<road id="2" length="50" junction="-1">
  <link><predecessor elementType="junction" elementId="9"/></link>
  <planView><geometry s="0" x="120" y="0" hdg="0" length="50"><arc curvature="0.02"/></geometry></planView>
  <lanes><laneSection s="0">
    <left><lane id="1" type="driving">{_LANE.format(3.5)}</lane></left>
    <center><lane id="0" type="none"/></center>
    <right><lane id="-1" type="driving">{_LANE.format(3.5)}</lane></right>
  </laneSection></lanes>
</road>"""

    def connecting(name: str, x: float, heading: float, before: str, after: str, end: int) -> str:
        return f"""<road id="{name}" length="20" junction="9">
  <link>
    <predecessor elementType="road" elementId="{before}" contactPoint="{"end" if end < 0 else "start"}"/>
    <successor elementType="road" elementId="{after}" contactPoint="{"start" if end < 0 else "end"}"/>
  </link>
  <planView><geometry s="0" x="{x}" y="0" hdg="{heading}" length="20"><line/></geometry></planView>
  <lanes><laneSection s="0"><center><lane id="0" type="none"/></center><right>
    <lane id="-1" type="driving">
      <link><predecessor id="{end}"/><successor id="{end}"/></link>{_LANE.format(3.5)}
    </lane>
  </right></laneSection></lanes>
</road>"""

    winding = """<road id="5" length="90" junction="-1" rule="LHT">
  <planView>
    <geometry s="0" x="0" y="100" hdg="0.5" length="30"><spiral curvStart="0" curvEnd="0.02"/></geometry>
    <geometry s="30" x="24" y="117" hdg="0.8" length="30"><poly3 a="0" b="0" c="0.01" d="0"/></geometry>
    <geometry s="60" x="40" y="143" hdg="1.3" length="30">
      <paramPoly3 pRange="arcLength" aU="0" bU="1" cU="0" dU="0" aV="0" bV="0" cV="0.001" dV="0"/>
    </geometry>
  </planView>
  <lateralProfile><superelevation s="0" a="0.02" b="0" c="0" d="0"/></lateralProfile>
  <lanes>
    <laneOffset s="0" a="0" b="0.01" c="0" d="0"/>
    <laneSection s="0"><center><lane id="0"/></center><right>
      <lane id="-1" type="driving"><link><successor id="-1"/></link>
        <width sOffset="0" a="3" b="0.02" c="0" d="0"/><width sOffset="20" a="3.4" b="0" c="0" d="0"/>
      </lane>
    </right></laneSection>
    <laneSection s="45"><center><lane id="0"/></center><right>
      <lane id="-1" type="driving"><link><predecessor id="-1"/></link>
        <border sOffset="0" a="-3.4" b="0" c="0" d="0"/>
      </lane>
    </right></laneSection>
  </lanes>
</road>"""
    roads = (
        east,
        bend,
        connecting("3", 100.0, 0.0, "1", "2", -1),
        connecting("4", 120.0, math.pi, "2", "1", 1),
        winding,
    )
    return f"""<?xml version="1.0"?>
<OpenDRIVE><header revMajor="1" revMinor="4"><geoReference>+proj=utm</geoReference></header>
{"".join(roads)}
<junction id="9">
  <connection id="0" incomingRoad="1" connectingRoad="3" contactPoint="start"><laneLink from="-1" to="-1"/></connection>
  <connection id="1" incomingRoad="2" connectingRoad="4" contactPoint="start"><laneLink from="1" to="-1"/></connection>
</junction></OpenDRIVE>"""


def sumo_net_xml() -> str:
    """Return a road of one lane from (0, 0) over a signal at (100, 0) to (200, 0), its lane 1.6 m right of y = 0.

    The signal shows red for 3 s, then green for 5 s, from time 1 s on and so before that too.
    """
    cars = 'index="0" speed="13.9"'
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<net version="1.20"><location netOffset="0.00,0.00" convBoundary="0,0,200,0"/>
<edge id=":b_0" function="internal"><lane id=":b_0_0" {cars} length="10" shape="95,-1.6 105,-1.6"/></edge>
<edge id=":b_c0" function="crossing"><lane id=":b_c0_0" {cars} length="8" width="4" shape="93,-4 93,4"/></edge>
<edge id="e1" from="a" to="b"><lane id="e1_0" {cars} length="95" shape="0,-1.6 95,-1.6"/></edge>
<edge id="e2" from="b" to="c"><lane id="e2_0" {cars} length="95" shape="105,-1.6 200,-1.6"/></edge>
<tlLogic id="b" type="static" programID="0" offset="1">
  <phase duration="3" state="r"/><phase duration="5" state="G"/>
</tlLogic>
<junction id="a" type="dead_end" x="0" y="0" incLanes="" intLanes="" shape="0,0 0,-3.2"/>
<junction id="b" type="traffic_light" x="100" y="0" incLanes="e1_0" intLanes=":b_0_0" shape="95,0 95,-3 105,0"/>
<junction id="c" type="dead_end" x="200" y="0" incLanes="e2_0" intLanes="" shape="200,-3.2 200,0"/>
<connection from="e1" to="e2" fromLane="0" toLane="0" via=":b_0_0" tl="b" linkIndex="0" dir="s" state="o"/>
<connection from=":b_0" to="e2" fromLane="0" toLane="0" dir="s" state="M"/>
</net>"""


def sumo_routes_xml() -> str:
    """Return a file of vehicle types: a lorry of 8 m by 2.5 m."""
    return '<routes><vType id="lorry" vClass="truck" length="8.0" width="2.5" height="3.0"/></routes>'


def sumo_fcd_xml(steps: int = 30, dt: float = 0.1, first: float = 0.0, net: str = "made.net.xml") -> str:
    """Return a lorry that drives east at 10 m/s from x = 20 m on, a bicycle behind it, and a walker who goes north."""
    rows = []
    for step in range(steps):
        time = step * dt
        rows.append(
            f'<timestep time="{first + time:.2f}">'
            f'<vehicle id="0" x="{20 + 10 * time:.3f}" y="-1.6" angle="90" type="lorry" speed="10.00"'
            f' pos="{20 + 10 * time:.3f}" lane="{"e1_0" if 20 + 10 * time <= 95 else ""}"/>'
            f'<vehicle id="b" x="{8 + 4 * time:.3f}" y="-2.5" angle="90" type="DEFAULT_BIKETYPE" speed="4.00"/>'
            f'<person id="p" x="93" y="{-4 + time:.3f}" angle="0" type="DEFAULT_PEDTYPE" speed="1.00" edge=":b_c0"/>'
            f'<person id="q" x="1" y="1" angle="0" vehicle="0" speed="1.00"/></timestep>'
        )
    header = f'<!-- <input><net-file value="folder/{net}"/><route-files value="made.rou.xml"/></input> -->'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{header}\n<fcd-export>{"".join(rows)}</fcd-export>'


def _bound(name: str, start: int, end: int, y: int, mark: str = "") -> str:
    points = "".join(f"<point><x>{x}</x><y>{y}</y></point>" for x in (start, (start + end) / 2, end))
    return f"<{name}>{points}{f'<lineMarking>{mark}</lineMarking>' if mark else ''}</{name}>"


def _state(tag: str, x: float | int, y: int, step: int, speed: int, heading: str = "<exact>0.0</exact>") -> str:
    return (
        f"<{tag}><position><point><x>{x}</x><y>{y}</y></point></position><orientation>{heading}</orientation>"
        f"<time><exact>{step}</exact></time><velocity><exact>{speed}</exact></velocity></{tag}>"
    )


def commonroad_xml(version: str = "2020a", dt: float = 0.1, problem: bool = True) -> str:
    """Return two lanes east, y from 0 to 4 and from 4 to 8, over x = 50 with its light to x = 100.

    A car drives at 10 m/s along y = 2, a tree stands at (70, -3), a lorry whose box lies 1 m ahead of its position
    waits on the left lane; 2018b has no light. The ego starts at (5, 6) and is to reach lanelet 4, ahead of lanelet 2.
    """
    lane = '<lanelet id="{}">{}{}{}{}</lanelet>'
    kind = "<laneletType>urban</laneletType>" if version == "2020a" else "<speedLimit>13.5</speedLimit>"
    new = version == "2020a"
    stop = (
        "<stopLine><point><x>48</x><y>4</y></point><point><x>48</x><y>0</y></point><lineMarking>solid</lineMarking>"
        '<trafficLightRef ref="40"/></stopLine>'
    )
    signs = '<trafficSignRef ref="50"/><trafficLightRef ref="40"/>'
    lanelets = [
        lane.format(
            1,
            _bound("leftBound", 0, 50, 4, "dashed" if new else "")
            + _bound("rightBound", 0, 50, 0, "solid" if new else ""),
            '<successor ref="3"/><adjacentLeft ref="2" drivingDir="same"/>',
            stop + kind if new else "",
            signs if new else kind,
        ),
        lane.format(
            2,
            _bound("leftBound", 0, 50, 8) + _bound("rightBound", 0, 50, 4),
            '<successor ref="4"/><adjacentRight ref="1" drivingDir="same"/>',
            kind,
            "",
        ),
        lane.format(
            3, _bound("leftBound", 50, 100, 4) + _bound("rightBound", 50, 100, 0), '<predecessor ref="1"/>', kind, ""
        ),
        lane.format(
            4, _bound("leftBound", 50, 100, 8) + _bound("rightBound", 50, 100, 4), '<predecessor ref="2"/>', kind, ""
        ),
    ]
    cycle = "".join(
        f"<cycleElement><duration>{steps}</duration><color>{colour}</color></cycleElement>"
        for steps, colour in ((20, "red"), (5, "redYellow"), (30, "green"), (5, "yellow"))
    )
    signals = f"""<trafficSign id="50"><trafficSignElement><trafficSignID>274</trafficSignID>
<additionalValue>13.5</additionalValue></trafficSignElement></trafficSign>
<trafficLight id="40"><cycle>{cycle}<timeOffset>10</timeOffset></cycle><direction>all</direction></trafficLight>
<intersection id="60">
<incoming id="61"><incomingLanelet ref="1"/><successorsStraight ref="3"/></incoming>
</intersection>"""
    car = "<shape><rectangle><length>4.5</length><width>1.8</width></rectangle></shape>"
    corners = ((-3, -1), (5, -1), (5, 1), (-3, 1))
    lorry = "".join(f"<point><x>{x}</x><y>{y}</y></point>" for x, y in corners)
    drive = "".join(_state("state", 10 + 10 * step * dt, 2, step, 10) for step in range(1, 31))
    middle = "<intervalStart>-0.2</intervalStart><intervalEnd>0.2</intervalEnd>"
    bodies = [
        ("dynamic", 30, "car", car, _state("initialState", 10, 2, 0, 10), f"<trajectory>{drive}</trajectory>"),
        ("static", 31, "unknown", "<shape><circle><radius>0.5</radius></circle></shape>",
         _state("initialState", 70, -3, 0, 0, middle), ""),
        ("static", 32, "truck", f"<shape><polygon>{lorry}</polygon></shape>", _state("initialState", 80, 6, 0, 0), ""),
    ]  # fmt: skip
    obstacles = ""
    for role, number, name, shape, state, rest in bodies:
        tag = f"{role}Obstacle" if new else "obstacle"
        said = "" if new else f"<role>{role}</role>"
        obstacles += f'<{tag} id="{number}">{said}<type>{name}</type>{shape}{state}{rest}</{tag}>'
    goal = '<goalState><position><lanelet ref="4"/></position><time><exact>30</exact></time></goalState>'
    task = f'<planningProblem id="99">{_state("initialState", 5, 6, 0, 8)}{goal}</planningProblem>'
    return (
        f'<?xml version="1.0"?><commonRoad commonRoadVersion="{version}" benchmarkID="MADE" timeStepSize="{dt}">'
        f"{''.join(lanelets)}{signals if new else ''}{obstacles}{task if problem else ''}</commonRoad>"
    )
