// Everything that changes a plane goes through one queue, in order, and is tried until the server has it.

import { api, Refusal } from "./api.js";
import * as journal from "./journal.js";
import { showBanner, hideBanner, toast } from "./notices.js";
import { adopt, app, loadPainting } from "./state.js";

const RETRY_MS = 1500;
const jobs = [];
let running = false;
let wake = null;
let onChange = () => {};
let failing = false;

export function watchSaver(callback) { onChange = callback; }
export const saverStatus = () => (failing ? "bad" : jobs.length ? "busy" : "good");
export const isStepping = (p) => jobs.some((job) => job.plane === p && job.kind === "step");
export const hasUnsaved = () => jobs.length > 0;
export function retryNow() { wake?.(); }

const pendingSaves = (p) => jobs.filter((job) => job.plane === p && job.kind === "save").length;

function add(job) {
  const entry = { ...job, scan: app.scan.identifier };
  entry.finished = new Promise((resolve) => { entry.resolve = resolve; });
  jobs.push(entry);
  onChange();
  run();
  return entry.finished;
}

// Each returns a promise of true when the server has it, false when it refused.
export function save(p, action) {
  const mask = p.mask.slice();
  const promise = add({ kind: "save", plane: p, mask, action });
  journal.remember(p, mask, pendingSaves(p));
  return promise;
}
export const step = (p, by) => add({ kind: "step", plane: p, by });
export const setDone = (p, done) => add({ kind: "done", plane: p, done });
export async function drained() {
  while (jobs.length) await jobs.at(-1).finished;
}

async function carryOut(job) {
  const p = job.plane;
  if (job.kind === "save") adopt(p, await api.save(job.scan, p, job.mask, p.version, job.action));
  if (job.kind === "done") adopt(p, await api.done(job.scan, p, job.done, p.version));
  if (job.kind === "step") {
    const { state, mask } = await api.step(job.scan, p, job.by, p.version);
    adopt(p, state, pendingSaves(p) ? null : mask); // what was done since is newer
  }
}

async function run() {
  if (running) return;
  running = true;
  while (jobs.length) {
    const job = jobs[0];
    let kept = true;
    try {
      await carryOut(job);
    } catch (error) {
      if (!(error instanceof Refusal)) { await sufferAndWait(error); continue; }
      kept = false;
      await giveUp(job, error);
    }
    if (failing) { failing = false; hideBanner(); toast("Connected again; everything is saved."); }
    jobs.shift();
    if (job.kind === "save" && kept) keepJournal(job); // what was refused stays in the journal
    job.resolve(kept);
    onChange();
  }
  running = false;
}

function keepJournal(job) {
  const left = jobs.filter((other) => other.plane === job.plane && other.kind === "save");
  if (left.length) journal.remember(job.plane, left.at(-1).mask, left.length);
  else journal.forget(job.plane);
}

const WORDS = {
  connection: "NOT SAVED: no connection to the server. What you paint stays in this browser and is saved as soon as the server answers.",
  session: "NOT SAVED: the server was started anew. Open the address that it printed in this browser; this page then goes on by itself.",
};

async function sufferAndWait(error) {
  failing = true;
  showBanner(WORDS[error.kind] ?? `NOT SAVED: ${error.message}`, "Try now", retryNow);
  onChange();
  await new Promise((resolve) => { wake = resolve; setTimeout(resolve, RETRY_MS); });
  wake = null;
}

// The server said no: say so, drop what was built on it, and show what the server has.
async function giveUp(job, error) {
  for (let i = jobs.length - 1; i > 0; i--) {
    if (jobs[i].plane === job.plane) jobs.splice(i, 1)[0].resolve(false);
  }
  toast(error.message, "bad");
  try { await loadPainting(job.plane); } catch { /* the next action will tell */ }
}
