// Talking to the server. A Refusal is its answer (409, 422, ...); a Trouble may pass (no connection, not let in).

export class Refusal extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

export class Trouble extends Error {
  constructor(kind, message) { super(message); this.kind = kind; }
}

async function send(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch {
    throw new Trouble("connection", "The connection to the server is lost.");
  }
  if (response.ok) return response;
  if (response.status === 401) throw new Trouble("session", "The server was started anew.");
  const text = await response.text();
  let message = text;
  try { message = JSON.parse(text).error ?? text; } catch { /* plain text */ }
  if (response.status >= 500) throw new Trouble("server", message || `The server failed (${response.status}).`);
  throw new Refusal(response.status, message);
}

const planePath = (scan, plane, what) =>
  `/api/scans/${encodeURIComponent(scan)}/${plane.axis}/${plane.index}/${what}`;
const scanPath = (scan, what) => `/api/scans/${encodeURIComponent(scan)}/${what}`;
const json = (content) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) });
const bytes = async (response) => new Uint8Array(await response.arrayBuffer());

async function painting(response) {
  return { state: JSON.parse(response.headers.get("X-State")), mask: await bytes(response) };
}

export const api = {
  round: async () => (await send("/api/round")).json(),
  open: async (scan) => (await send(scanPath(scan, "open"), json({}))).json(),
  release: (scan) => send(scanPath(scan, "release"), json({})),
  time: async (scan, seconds, leaving = false) =>
    (await send(scanPath(scan, "time"), { ...json({ seconds }), keepalive: leaving })).json(),
  finish: async (scan, anyway) => (await send(scanPath(scan, "finish"), json({ anyway }))).json(),

  async image(scan, plane, channel) {
    const buffer = await (await send(planePath(scan, plane, `image?channel=${channel}`))).arrayBuffer();
    const view = new DataView(buffer); // the same on every machine, whatever its byte order
    return Uint16Array.from({ length: buffer.byteLength / 2 }, (_, i) => view.getUint16(2 * i, true));
  },
  mask: async (scan, plane) => painting(await send(planePath(scan, plane, "mask"))),
  crossings: async (scan, plane) => bytes(await send(planePath(scan, plane, "crossings"))),
  proposal: async (scan, plane) => bytes(await send(planePath(scan, plane, "proposal"))),
  save: async (scan, plane, mask, base, action) =>
    (await send(planePath(scan, plane, `mask?base=${base}&action=${encodeURIComponent(action)}`),
      { method: "PUT", headers: { "Content-Type": "application/octet-stream" }, body: mask })).json(),
  step: async (scan, plane, by, base) => painting(await send(planePath(scan, plane, "step"), json({ by, base }))),
  done: async (scan, plane, done, base) => (await send(planePath(scan, plane, "done"), json({ done, base }))).json(),
  async ask(scan, plane, prompt) {
    const response = await send(planePath(scan, plane, "ask"), json(prompt));
    return { mask: await bytes(response), quality: Number(response.headers.get("X-Quality")) };
  },
};
