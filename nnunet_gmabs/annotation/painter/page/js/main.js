// The start: the list, or the scan that the address names (#scan), so that a reload comes back to it.

import * as actions from "./actions.js";
import { startActivity } from "./activity.js";
import { api, Refusal } from "./api.js";
import { redraw } from "./draw.js";
import * as journal from "./journal.js";
import { startKeys } from "./keys.js";
import { showList } from "./list.js";
import { hideBanner, question, showBanner, toast } from "./notices.js";
import { buildPanels, buildTools, showSaved } from "./panel.js";
import * as saver from "./saver.js";
import { adopt, app, forgetPictures, loadPlane } from "./state.js";
import { startTools } from "./tools.js";
import { fit, resize } from "./viewport.js";

const get = (id) => document.getElementById(id);

async function list() {
  app.scan = null;
  history.replaceState(null, "", "/");
  app.round = await api.round();
  document.title = `Painter · ${app.round.dataset}`;
  showList((identifier) => attempt(() => open(identifier)));
}

async function open(identifier) {
  try {
    await load(identifier);
  } catch (error) {
    if (!(error instanceof Refusal) && error.kind !== "server") throw error;
    await api.release(identifier).catch(() => {}); // what cannot be shown is nobody's
    await list();
    return question(error.message, "All right", "");
  }
  const { scan } = app;
  get("list").hidden = true;
  get("painter").hidden = false;
  buildPanels();
  fitStage();
  fit();
  for (const p of scan.planes) await recover(p);
  actions.show();
  get("canvas").focus();
}

async function load(identifier) {
  const scan = await api.open(identifier);
  forgetPictures();
  const first = Math.max(0, scan.planes.findIndex((p) => !p.done));
  Object.assign(app, { scan, current: first, offset: 0, channel: 0, prompt: null, showProposal: false });
  app.windows = scan.channels.map(({ level, width }) => ({ level, width }));
  if (!app.round.classes.some((c) => c.value === app.value)) app.value = app.round.classes[0].value;
  history.replaceState(null, "", `#${encodeURIComponent(identifier)}`);
  document.title = `${identifier} · Painter`;
  await Promise.all(scan.planes.map(loadPlane));
}

// Strokes that an earlier page could not save.
async function recover(p) {
  const left = journal.recall(p);
  if (!left) return;
  const same = left.mask.every((v, i) => v === p.mask[i]);
  const wanted = !same && !p.done && (left.expected ||
    (await question(`This browser still has painting of the ${p.name} plane that was never saved, made on an older state. Take it over? (Undo takes it away again.)`, "Take it over", "Drop it")));
  if (!wanted) return journal.forget(p);
  adopt(p, {}, left.mask);
  actions.changed(p, "recovered");
  toast("Painting that was not saved yet was recovered in this browser.");
}

function fitStage() {
  const canvas = get("canvas"), ratio = window.devicePixelRatio || 1;
  const { clientWidth, clientHeight } = get("stage");
  if (!app.scan || !clientWidth) return;
  canvas.width = Math.round(clientWidth * ratio);
  canvas.height = Math.round(clientHeight * ratio);
  resize(clientWidth, clientHeight);
  redraw();
}

// At the start and between scans the server may be away: say so, and try until it is back. One thing at a time: a scan
// that is still waiting must not come over another one.
let trying = false;
async function attempt(run) {
  if (trying) return;
  trying = true;
  try {
    await tryUntilDone(run);
  } finally {
    trying = false;
  }
}

async function tryUntilDone(run) {
  for (;;) {
    try {
      await run();
      hideBanner();
      return;
    } catch (error) {
      const words = error.kind === "session" ? "Please open the address that `gmabs annotate` printed last." : error.message;
      showBanner(words, "Try again", () => {});
      if (!error.kind) { console.error(error); return; }
      await new Promise((resolve) => setTimeout(resolve, 1500));
    }
  }
}

async function start() {
  new ResizeObserver(fitStage).observe(get("stage"));
  saver.watchSaver(() => { if (app.scan) showSaved(); });
  actions.onLeave(async (words) => {
    app.scan = null;
    await attempt(list);
    if (words) question(words, "All right", "");
  });
  window.addEventListener("beforeunload", (event) => { if (saver.hasUnsaved()) event.preventDefault(); });
  const wanted = decodeURIComponent(location.hash.slice(1));
  await attempt(async () => { app.round = await api.round(); });
  buildTools();
  startTools();
  startKeys();
  startActivity();
  await attempt(() => (app.round.scans.some((s) => s.identifier === wanted) ? open(wanted) : list()));
}

start();
