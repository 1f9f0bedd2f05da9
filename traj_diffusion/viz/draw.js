// Everything on the canvas. Paths are in metres around the data's centre; `px` is one pixel in metres.

const TRAIL = 20; // steps that a trail is long
const BANDS = 8; // steps of colour along a planned future
const SMALLEST = 5; // pixels that a box is long and wide at least
const THINNING = 4; // a trajectory of a ghost keeps every fourth step

function buildMap(data) {
  return data.map.map(({ name, width, count, xy }) => {
    const path = new Path2D(), total = xy.length / 2;
    let at = 0;
    for (const points of count) {
      for (let i = 0; i < points; i++, at++) {
        const x = xy[at] / 100, y = xy[total + at] / 100;
        if (name === "stop_sign") octagon(path, x, y, 1.1);
        else if (i) path.lineTo(x, y);
        else path.moveTo(x, y);
      }
      if (["crosswalk", "zebra", "speed_bump", "driveway"].includes(name)) path.closePath();
    }
    return { name, width, path };
  });
}

function octagon(path, x, y, radius) {
  for (let corner = 0; corner < 8; corner++) {
    const angle = ((corner + 0.5) * Math.PI) / 4;
    path[corner ? "lineTo" : "moveTo"](x + radius * Math.cos(angle), y + radius * Math.sin(angle));
  }
  path.closePath();
}

function drawMap(ctx, layers, px, tone) {
  for (const { name, width, path } of layers) {
    ctx.setLineDash([]);
    ctx.lineCap = ctx.lineJoin = "round";
    if (name === "asphalt") {
      ctx.lineWidth = width;
      ctx.strokeStyle = tone("asphalt");
      ctx.stroke(path);
    } else if (["driveway", "speed_bump", "zebra", "stop_sign"].includes(name)) {
      ctx.fillStyle = tone(name);
      ctx.fill(path);
      if (name === "stop_sign") {
        ctx.lineWidth = 1.4 * px;
        ctx.strokeStyle = tone("zebra");
        ctx.stroke(path);
      }
    } else if (name === "crosswalk") {
      ctx.fillStyle = tone("asphalt");
      ctx.fill(path);
    } else if (name === "lane" || name === "road_edge") {
      ctx.lineWidth = (name === "lane" ? 0.9 : 1.6) * px;
      ctx.strokeStyle = tone(name);
      ctx.stroke(path);
    } else {
      const [colour, broken] = name.split("_");
      ctx.lineWidth = Math.max(0.15, 1.1 * px);
      ctx.strokeStyle = tone(colour);
      if (broken) {
        ctx.lineCap = "butt";
        ctx.setLineDash([3, 3]);
      }
      ctx.stroke(path);
    }
  }
  ctx.setLineDash([]);
}

// Adds steps `from` to `to` of the track that begins at index `start`, broken where it is not valid.
function addTrack(path, tracks, start, from, to, stride) {
  let drawing = false;
  for (let step = from; step <= to; step = step === to ? to + 1 : Math.min(step + stride, to)) {
    const index = start + step;
    if (!tracks.valid[index]) {
      drawing = false;
      continue;
    }
    path[drawing ? "lineTo" : "moveTo"](tracks.xy[index] / 100, tracks.xy[tracks.total + index] / 100);
    drawing = true;
  }
}

function colourOf(data, row) {
  return row === data.ego ? data.colours.ego : data.colours.kind[data.agents.kind[row]];
}

function buildRuns(data) {
  const paths = new Map();
  const { row, steps, count } = data.runs;
  for (let run = 0; run < count; run++)
    row.forEach((agent, column) => {
      const colour = colourOf(data, agent);
      if (!paths.has(colour)) paths.set(colour, new Path2D());
      addTrack(paths.get(colour), data.runs, (run * row.length + column) * steps, 0, steps - 1, THINNING);
    });
  return paths;
}

function buildFutures(data, colours) {
  const { steps, count, total } = data.futures;
  return Array.from({ length: BANDS }, (_, band) => {
    const path = new Path2D();
    const from = Math.round((band * (steps - 1)) / BANDS), to = Math.round(((band + 1) * (steps - 1)) / BANDS);
    for (let start = 0; count && start < total; start += steps) addTrack(path, data.futures, start, from, to, 2);
    return { path, colour: timeColour(colours, band / (BANDS - 1)) };
  });
}

function timeColour(stops, share) {
  const at = share * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2);
  const parts = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const [a, b] = [parts(stops[low]), parts(stops[low + 1])];
  return `rgb(${a.map((value, i) => Math.round(value + (at - low) * (b[i] - value))).join(",")})`;
}

function buildLog(data) {
  const path = new Path2D(), { steps, total } = data.log;
  for (let row = 0; row < total / (steps || 1); row++)
    if (data.log.valid[row * steps + data.now]) addTrack(path, data.log, row * steps, data.now, steps - 1, 1);
  return path;
}

function boxPath(path, pose) {
  const cos = Math.cos(pose.heading), sin = Math.sin(pose.heading);
  const corner = (along, across) => [
    pose.x + cos * along * pose.length - sin * across * pose.width,
    pose.y + sin * along * pose.length + cos * across * pose.width,
  ];
  path.moveTo(...corner(0.5, 0.5));
  path.lineTo(...corner(-0.5, 0.5));
  path.lineTo(...corner(-0.5, -0.5));
  path.lineTo(...corner(0.5, -0.5));
  path.closePath();
  return corner;
}

function drawGhosts(ctx, data, at, px) {
  const paths = new Map();
  for (const row of data.runs.row)
    for (let run = 0; run < data.runs.count; run++) {
      const pose = poseAt(data, run, row, at);
      if (!pose) continue;
      const colour = colourOf(data, row);
      if (!paths.has(colour)) paths.set(colour, new Path2D());
      boxPath(paths.get(colour), pose);
    }
  ctx.lineWidth = px;
  for (const [colour, path] of paths) {
    ctx.strokeStyle = colour;
    ctx.globalAlpha = Math.max(0.25, 0.9 / Math.sqrt(data.runs.count));
    ctx.stroke(path);
  }
  ctx.globalAlpha = 1;
}

function drawLogBoxes(ctx, data, at, px, tone) {
  const path = new Path2D();
  for (let row = 0; row < data.agents.id.length; row++) {
    const pose = poseAt(data, -1, row, at);
    if (pose) boxPath(path, pose);
  }
  ctx.lineWidth = 1.3 * px;
  ctx.strokeStyle = tone("ink");
  ctx.setLineDash([4 * px, 3 * px]);
  ctx.stroke(path);
  ctx.setLineDash([]);
}

function drawTrails(ctx, data, run, at, px) {
  ctx.lineWidth = 3 * px;
  ctx.lineCap = "butt";
  const head = Math.floor(at);
  const present = Array.from(data.agents.id.keys()).filter((row) => stateAt(data, run, row, head));
  for (let age = TRAIL; age >= 0; age--) {
    const paths = new Map(); // one stroke for each colour and age, not for each agent
    for (const row of present) {
      const from = stateAt(data, run, row, head - age), to = from && (age ? stateAt(data, run, row, head - age + 1) : poseAt(data, run, row, at));
      if (!to) continue;
      const colour = colourOf(data, row);
      if (!paths.has(colour)) paths.set(colour, new Path2D());
      paths.get(colour).moveTo(from.x, from.y);
      paths.get(colour).lineTo(to.x, to.y);
    }
    ctx.globalAlpha = 0.65 * (1 - age / (TRAIL + 1));
    for (const [colour, path] of paths) {
      ctx.strokeStyle = colour;
      ctx.stroke(path);
    }
  }
  ctx.globalAlpha = 1;
}

function drawLights(ctx, data, at, holdNow, px, tone) {
  const count = data.lights.lane.length;
  for (let light = 0; light < count; light++) {
    const shown = lightAt(data, light, at, holdNow);
    if (!shown) continue;
    const radius = Math.max(0.7, 4.5 * px);
    ctx.beginPath();
    ctx.arc(data.lights.xy[light] / 100, data.lights.xy[count + light] / 100, radius, 0, 2 * Math.PI);
    ctx.fillStyle = data.colours.light[shown.state];
    ctx.fill();
    ctx.lineWidth = 1.8 * px;
    ctx.strokeStyle = tone(shown.held ? "paper" : "ink");
    ctx.stroke();
  }
}

// Returns the poses that it drew, for the pointer to find.
function drawAgents(ctx, data, run, at, px, tone, selected) {
  const rows = Array.from(data.agents.id.keys()).sort((a, b) => (a === data.ego) - (b === data.ego) || data.size[2 * b] - data.size[2 * a]);
  const poses = [];
  for (const row of rows) {
    const pose = poseAt(data, run, row, at);
    if (!pose) continue;
    poses.push({ row, ...pose });
    // For pedestrians to be seen in a wide view.
    [pose.length, pose.width] = [Math.max(pose.length, SMALLEST * px), Math.max(pose.width, SMALLEST * px)];
    const body = new Path2D(), corner = boxPath(body, pose);
    ctx.lineWidth = 2.2 * px; // a halo around the box, which takes nothing from its size
    ctx.strokeStyle = tone("paper");
    ctx.stroke(body);
    ctx.fillStyle = colourOf(data, row);
    ctx.fill(body);
    if (pose.length > 11 * px) {
      ctx.beginPath();
      ctx.moveTo(...corner(0.4, 0));
      ctx.lineTo(...corner(0.12, 0.34));
      ctx.lineTo(...corner(0.12, -0.34));
      ctx.closePath();
      ctx.fillStyle = "rgba(255,255,255,0.85)";
      ctx.fill();
    }
    if (row !== selected) continue;
    ctx.beginPath();
    ctx.arc(pose.x, pose.y, Math.hypot(pose.length, pose.width) / 2 + 5 * px, 0, 2 * Math.PI);
    ctx.lineWidth = 2 * px;
    ctx.strokeStyle = tone("ink");
    ctx.stroke();
  }
  return poses;
}

function drawScale(ctx, scale, width, height, tone) {
  const length = [100, 50, 20, 10, 5, 2, 1].find((step) => step * scale <= 160) || 1;
  const right = width - 18, left = right - length * scale, y = height - 18;
  for (const [colour, line] of [["paper", 5], ["ink", 1.5]]) {
    ctx.beginPath();
    ctx.moveTo(left, y - 4);
    ctx.lineTo(left, y);
    ctx.lineTo(right, y);
    ctx.lineTo(right, y - 4);
    ctx.lineWidth = line;
    ctx.strokeStyle = tone(colour);
    ctx.stroke();
  }
  ctx.font = "12px system-ui, sans-serif";
  ctx.textAlign = "center";
  ctx.lineWidth = 4;
  ctx.strokeStyle = tone("paper");
  ctx.strokeText(`${length} m`, (left + right) / 2, y - 7);
  ctx.fillStyle = tone("ink");
  ctx.fillText(`${length} m`, (left + right) / 2, y - 7);
}
