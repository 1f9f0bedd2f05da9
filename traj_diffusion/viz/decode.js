// The other half of packing.py, and questions to the data: who is where at a step.

async function unpack({ shape, data }) {
  const packed = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = bytes.length / 4;
  const values = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    const folded = bytes[i] | (bytes[count + i] << 8) | (bytes[2 * count + i] << 16) | (bytes[3 * count + i] << 24);
    values[i] = (folded >>> 1) ^ -(folded & 1);
  }
  const length = shape[shape.length - 1];
  for (let start = 0; length && start < count; start += length) {
    for (let slope = 0, value = 0, i = start; i < start + length; i++) {
      slope = (slope + values[i]) | 0;
      value = (value + slope) | 0;
      values[i] = value;
    }
  }
  return { shape, values };
}

async function unpackTracks({ xy, heading, valid }) {
  const [place, turn, there] = await Promise.all([unpack(xy), heading && unpack(heading), unpack(valid)]);
  const steps = there.shape[there.shape.length - 1];
  return { xy: place.values, heading: turn && turn.values, valid: there.values, steps, total: there.values.length };
}

async function decode(text) {
  const data = JSON.parse(text);
  data.size = (await unpack(data.agents.size)).values;
  data.log = await unpackTracks(data.log);
  if (data.runs) {
    const { row, first, size } = data.runs;
    const tracks = await unpackTracks(data.runs);
    const count = row.length ? tracks.total / (row.length * tracks.steps || 1) : 0;
    data.runs = { ...tracks, row, first, count, size: size && (await unpack(size)).values };
    data.runs.column = new Int32Array(data.agents.id.length).fill(-1);
    row.forEach((agent, column) => (data.runs.column[agent] = column));
  }
  if (data.futures) {
    data.futures = await unpackTracks(data.futures);
    data.futures.count = data.runs.row.length ? data.futures.total / (data.runs.row.length * data.futures.steps) : 0;
  }
  data.lights.xy = (await unpack(data.lights.xy)).values;
  data.lights.state = (await unpack(data.lights.state)).values;
  for (const layer of data.map) layer.xy = (await unpack(layer.xy)).values;
  return data;
}

// A state of agent `row` at a whole step in run `run`; run -1 is the record. Null where the agent is not there.
function stateAt(data, run, row, step) {
  let tracks = data.log, index = row * data.log.steps + step, inside = step >= 0 && step < data.log.steps;
  if (run >= 0 && step >= data.runs.first) {
    const column = data.runs.column[row], offset = step - data.runs.first;
    tracks = data.runs;
    inside = column >= 0 && offset < tracks.steps;
    index = ((run * tracks.row.length) + column) * tracks.steps + offset;
  }
  if (!inside || !tracks.valid[index]) return null;
  return { x: tracks.xy[index] / 100, y: tracks.xy[tracks.total + index] / 100, heading: tracks.heading[index] / 1000 };
}

// The same between two steps. Headings of record and run meet at any number of turns, hence the remainder.
function poseAt(data, run, row, at) {
  const step = Math.floor(at), share = at - step;
  const here = stateAt(data, run, row, step);
  const next = here && stateAt(data, run, row, step + 1);
  const before = here && !next ? stateAt(data, run, row, step - 1) : null;
  if (!here) return null;
  const pace = next ? Math.hypot(next.x - here.x, next.y - here.y) : before ? Math.hypot(here.x - before.x, here.y - before.y) : NaN;
  const pose = { ...here, speed: pace / data.dt };
  if (next && share > 0) {
    const full = 2 * Math.PI;
    let turn = (next.heading - here.heading) % full;
    if (turn > Math.PI) turn -= full;
    if (turn < -Math.PI) turn += full;
    pose.x += share * (next.x - here.x);
    pose.y += share * (next.y - here.y);
    pose.heading += share * turn;
  }
  const size = run >= 0 && at >= data.runs.first && data.runs.size ? data.runs.size : data.size;
  const slot = size === data.size ? row : run * data.runs.row.length + data.runs.column[row];
  pose.length = Math.max(size[2 * slot] / 100, 0.5);
  pose.width = Math.max(size[2 * slot + 1] / 100, 0.5);
  return pose;
}

// State of a light, and whether it is the last one seen rather than the one at this step. Null before it is seen.
function lightAt(data, light, at, holdNow) {
  const steps = data.lights.state.length / (data.lights.lane.length || 1);
  const wanted = holdNow ? Math.min(Math.floor(at), data.now) : Math.floor(at);
  for (let step = Math.min(wanted, steps - 1); step >= 0; step--) {
    const state = data.lights.state[light * steps + step];
    if (state !== 255) return { state, held: step < Math.floor(at) };
  }
  return null;
}
