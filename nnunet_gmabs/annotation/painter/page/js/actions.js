// What buttons and keys do to the open scan.

import { sendTime } from "./activity.js";
import { api, Refusal } from "./api.js";
import { redraw } from "./draw.js";
import * as generalist from "./generalist.js";
import { masksChanged } from "./layers.js";
import { question, toast } from "./notices.js";
import { showPanels } from "./panel.js";
import { disagreements } from "./raster.js";
import * as saver from "./saver.js";
import { app, hasPaint, loadCrossings, loadPicture, plane } from "./state.js";
import { fit, zoom } from "./viewport.js";

let leave = () => {};
export function onLeave(callback) { leave = callback; }

export function changed(p, action) {
  saver.save(p, action).then(show);
  show();
}

export function show() {
  if (!app.scan) return;
  showPanels();
  redraw();
}

export async function goTo(number) {
  if (number < 0 || number >= app.scan.planes.length) return;
  generalist.clear();
  Object.assign(app, { current: number, offset: 0, lasso: null });
  fit();
  show();
  await refreshCrossings();
}

// What the planes say to each other, once everything is saved.
async function refreshCrossings() {
  await saver.drained();
  try {
    await Promise.all(app.scan.planes.map(loadCrossings));
  } catch { /* the next time will do; what is not saved is told by the saver */ }
  show();
}

export async function look(offset) {
  const p = plane(), limit = app.scan.neighbours, to = Math.min(Math.max(offset, -limit), limit);
  if (p.index + to < 0 || p.index + to >= p.count) return;
  app.offset = to;
  show();
  try {
    await loadPicture(p, p.index + to);
  } catch (error) {
    toast(error.message, "bad");
  }
  show();
}

export async function step(by) {
  const p = plane();
  if (p.done) return toast("This plane is marked done. Press D to reopen it.");
  app.offset = 0;
  await saver.step(p, by);
  masksChanged();
  await refreshCrossings();
}

export async function toggleDone() {
  const p = plane(), done = !p.done;
  generalist.clear();
  app.offset = 0;
  if (done && !hasPaint(p) && !(await question("Nothing is painted on this plane. Is the whole plane background?", "Yes, all background"))) return;
  await declare(p, done);
}

export async function notHere() {
  const p = plane();
  if (p.done) return toast("This plane is marked done. Press D to reopen it.");
  if (hasPaint(p) && !(await question("Remove what is painted on this plane and mark it as all background?", "Remove and mark done"))) return;
  generalist.clear();
  p.mask.fill(0);
  masksChanged();
  changed(p, "not here");
  await declare(p, true);
}

// Done: on to the first plane that is not.
async function declare(p, done) {
  if (!(await saver.setDone(p, done))) return show();
  show();
  const open = app.scan.planes.findIndex((q) => !q.done);
  if (done && open >= 0 && p === plane()) {
    toast("Done. Next plane.");
    return goTo(open);
  }
  if (done) toast(app.scan.planes.every((q) => q.done) ? "All planes are done. Finish the scan when you are content." : "Done.");
  await refreshCrossings();
}

export async function acceptProposal() {
  const p = plane();
  if (!p.proposal || p.done || app.offset) return;
  if (!app.showProposal) return toast("Show the proposal first (P), then accept it.");
  p.mask = p.proposal.slice();
  masksChanged();
  changed(p, "proposal");
  toast("The model's proposal was taken over; correct it as needed.");
}

export async function finish() {
  await saver.drained();
  const open = app.scan.planes.filter((p) => !p.done).length;
  if (open && !(await question(`${open} of ${app.scan.planes.length} planes are not marked done. They will not be part of the answer.`, "Finish without them", "Go on painting"))) return;
  await sendTime();
  await tell(async () => {
    let answer = await api.finish(app.scan.identifier, false);
    if (!answer.finished) {
      const text = `At ${answer.disagreements} voxel${answer.disagreements > 1 ? "s" : ""} two planes disagree (red squares where they cross).\n\nIf you finish now, the plane that was edited last decides there.`;
      if (!(await question(text, "Finish anyway", "Go and look"))) return lookAtDisagreement();
      answer = await api.finish(app.scan.identifier, true);
    }
    await leave("The scan is finished. Thank you.");
  });
}

async function lookAtDisagreement() {
  await refreshCrossings();
  const found = app.scan.planes.findIndex((p) => disagreements(p).length);
  if (found >= 0) await goTo(found);
}

export async function backToList() {
  await saver.drained();
  await sendTime();
  await api.release(app.scan.identifier).catch(() => {}); // the claim ends by itself, too
  await leave("");
}

async function tell(run) {
  try {
    await run();
  } catch (error) {
    toast(error instanceof Refusal ? error.message : `Not finished: ${error.message} Try again.`, "bad");
  }
}

export function setWindow(level, width) {
  app.windows[app.channel] = { level, width };
  redraw();
}

export function resetWindow() {
  const { level, width } = app.scan.channels[app.channel];
  setWindow(level, width);
  show();
}

export async function setChannel(number) {
  app.channel = number;
  show();
  await Promise.all(app.scan.planes.map((p) => loadPicture(p, p.index)));
  await loadPicture(plane(), plane().index + app.offset);
  show();
}

export function setTool(tool) {
  if (tool === "generalist" && !generalist.isAvailable()) return toast(`The generalist cannot be asked: ${app.round.generalist.why_not}.`);
  if (tool !== "generalist") generalist.clear();
  app.tool = tool;
  generalist.note("");
  show();
}

export function setClass(value) {
  app.value = value;
  generalist.classChanged();
  if (app.tool === "eraser") app.tool = "brush";
  show();
}

export function setSize(size) {
  app.size = Math.min(60, Math.max(1, size));
  show();
}

export function toggle(name) {
  app[name] = !app[name];
  show();
}

export function zoomBy(factor) { zoom(factor); redraw(); }
export function zoomFit() { fit(); redraw(); }

export function escape() {
  if (app.prompt) return generalist.clear();
  if (app.offset) return look(0);
}
