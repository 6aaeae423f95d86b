// Asking the generalist: drag a box or click (Shift: outside), look at its mask, accept it or not.

import * as actions from "./actions.js";
import { api, Refusal } from "./api.js";
import { redraw } from "./draw.js";
import { masksChanged } from "./layers.js";
import { toast } from "./notices.js";
import { app, currentWindow, plane } from "./state.js";

const DRAG = 1.5; // pixels of the picture; less is a click
let asking = 0;

export const isAvailable = () => app.round.generalist.available;

const clamp = (p, { x, y }) => ({ x: Math.min(Math.max(x, 0), p.columns), y: Math.min(Math.max(y, 0), p.rows) });

export function begin(event) {
  const p = plane(), start = clamp(p, app.hover), prompt = app.prompt ?? { box: null, points: [], mask: null };
  const before = prompt.box, inside = !event.shiftKey;
  const isDrag = () => Math.max(Math.abs(app.hover.x - start.x), Math.abs(app.hover.y - start.y)) > DRAG;
  app.prompt = prompt;
  return {
    move: () => {
      const to = clamp(p, app.hover);
      prompt.box = isDrag()
        ? [Math.min(start.x, to.x), Math.min(start.y, to.y), Math.max(start.x, to.x), Math.max(start.y, to.y)]
        : before;
    },
    end: () => {
      if (prompt.box !== before) prompt.points = [];
      else prompt.points.push({ ...start, inside });
      ask(p, prompt);
    },
  };
}

async function ask(p, prompt) {
  const number = ++asking, { level, width } = currentWindow();
  note("Asking the generalist …");
  const limit = (value, length) => Math.min(Math.max(value - 0.5, 0), length - 1); // middles of pixels are integers there
  const box = prompt.box && prompt.box.map((v, i) => limit(v, i % 2 ? p.rows : p.columns));
  const points = prompt.points.map(({ x, y }) => [limit(x, p.columns), limit(y, p.rows)]);
  const labels = prompt.points.map(({ inside }) => (inside ? 1 : 0));
  try {
    const answer = await api.ask(app.scan.identifier, p, { box, points, point_labels: labels, channel: app.channel, level, width });
    if (number !== asking || app.prompt !== prompt) return;
    prompt.found = answer.mask;
    colour(p, prompt);
    note(prompt.mask.some((v) => v) ? `Its own estimate of quality: ${answer.quality.toFixed(2)}` : "It finds nothing here.");
  } catch (error) {
    note("");
    toast(error instanceof Refusal ? error.message : "The generalist did not answer; try again.", "bad");
  }
  redraw();
}

// What would be accepted: the mask in the class being painted, except where other classes are painted.
function colour(p, prompt) {
  prompt.mask = prompt.found.map((found, i) => (found && (!p.mask[i] || p.mask[i] === app.value) ? app.value : 0));
}

export function classChanged() {
  if (app.prompt?.found) colour(plane(), app.prompt);
}

export function accept() {
  const p = plane();
  if (!app.prompt?.mask || p.done || app.offset) return;
  app.prompt.mask.forEach((value, i) => { if (value) p.mask[i] = value; });
  masksChanged();
  clear();
  actions.changed(p, "generalist");
}

export function clear() {
  app.prompt = null;
  asking += 1;
  note("");
  redraw();
}

export function note(text) {
  const words = document.getElementById("generalist-note");
  words.textContent = text || "Drag a box around the structure, or click into it (Shift-click: not this).";
  document.getElementById("generalist-accept").disabled = !app.prompt?.mask?.some((v) => v);
}
