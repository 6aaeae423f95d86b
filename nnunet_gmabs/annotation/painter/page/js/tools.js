// Mouse and pen on the stage: painting, windowing, panning, zooming, looking at neighbours.

import * as actions from "./actions.js";
import { redraw } from "./draw.js";
import { masksChanged } from "./layers.js";
import { toast } from "./notices.js";
import { fillOutline, region, stroke } from "./raster.js";
import { isStepping } from "./saver.js";
import { app, brushMm, currentWindow, plane } from "./state.js";
import { pan, toPicture, zoom } from "./viewport.js";
import * as generalist from "./generalist.js";

const canvas = document.getElementById("canvas");
let gesture = null; // what the pressed button does: {move, end}
let spaceHeld = false;

const at = (event) => toPicture(event.offsetX, event.offsetY);
const inside = ({ x, y }) => x >= 0 && y >= 0 && x < plane().columns && y < plane().rows;

export function holdSpace(held) {
  spaceHeld = held;
  canvas.classList.toggle("grab", held);
}

function mayPaint() {
  if (app.offset !== 0) toast("Neighbouring slices are read-only. Esc returns to the slice to paint.");
  else if (plane().done) toast("This plane is marked done. Press D to reopen it.");
  else return Boolean(plane().mask) && !isStepping(plane());
  return false;
}

// Brush and eraser: the mask is changed at once, the server gets it when the button is let go.
function brush(event) {
  const p = plane(), before = p.mask.slice(), erase = app.tool === "eraser" || event.shiftKey;
  const value = erase ? 0 : app.value;
  let last = at(event);
  const extend = (to) => { stroke(p, p.mask, last, to, brushMm(), value); last = to; masksChanged(); redraw(); };
  extend(last);
  return {
    move: (e) => { for (const part of e.getCoalescedEvents?.() ?? [e]) extend(partAt(part, e)); extend(at(e)); },
    end: () => { if (p.mask.some((v, i) => v !== before[i])) actions.changed(p, erase ? "eraser" : "brush"); },
  };
}

// Events inside a coalesced one know their place in the window only.
function partAt(part, event) {
  return toPicture(event.offsetX + part.clientX - event.clientX, event.offsetY + part.clientY - event.clientY);
}

function lasso(event) {
  const p = plane(), points = [at(event)];
  points.erase = event.shiftKey;
  app.lasso = points;
  return {
    move: (e) => { points.push(at(e)); redraw(); },
    end: () => {
      app.lasso = null;
      const before = p.mask.slice();
      if (points.length > 2) fillOutline(p, p.mask, points, points.erase ? 0 : app.value);
      masksChanged();
      redraw();
      if (p.mask.some((v, i) => v !== before[i])) actions.changed(p, "lasso");
    },
  };
}

function fill(event) {
  const p = plane(), { x, y } = at(event);
  const value = event.shiftKey ? 0 : app.value, column = Math.floor(x), row = Math.floor(y);
  if (!inside({ x, y }) || p.mask[row * p.columns + column] === value) return null;
  const { pixels, open } = region(p, p.mask, column, row);
  if (open && p.mask[row * p.columns + column] === 0) {
    toast("Not filled: the outline around this place is open, the fill would reach the picture's edge.", "bad");
    return null;
  }
  for (const i of pixels) p.mask[i] = value;
  masksChanged();
  redraw();
  actions.changed(p, "fill");
  return null;
}

function windowing(event) {
  const start = { x: event.clientX, y: event.clientY }, first = { ...currentWindow() };
  const grain = Math.max(first.width, app.scan.channels[app.channel].step * 8) / 300;
  return {
    move: (e) => actions.setWindow(
      first.level + (e.clientY - start.y) * grain,
      Math.max(app.scan.channels[app.channel].step, first.width + (e.clientX - start.x) * grain)),
    end: actions.show,
  };
}

function panning(event) {
  let last = { x: event.clientX, y: event.clientY };
  return {
    move: (e) => { pan(e.clientX - last.x, e.clientY - last.y); last = { x: e.clientX, y: e.clientY }; redraw(); },
    end: () => {},
  };
}

const PAINTING = { brush, eraser: brush, lasso, fill, generalist: generalist.begin };

function press(event) {
  canvas.focus();
  event.preventDefault();
  if (gesture) return;
  app.hover = at(event); // a pen may touch without having moved
  if (event.button === 2) gesture = windowing(event);
  else if (event.button === 1 || spaceHeld) gesture = panning(event);
  else if (event.button === 0 && mayPaint()) gesture = PAINTING[app.tool](event);
  if (gesture) canvas.setPointerCapture(event.pointerId);
}

function move(event) {
  app.hover = at(event);
  gesture?.move(event);
  redraw();
}

// Also when the page goes away in the middle of a stroke: what is painted so far counts.
export function endGesture(event = null) {
  const ended = gesture;
  gesture = null;
  ended?.end(event);
}

function wheel(event) {
  event.preventDefault();
  if (event.ctrlKey || event.metaKey) zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
  else if (event.deltaY && !gesture) actions.look(app.offset + Math.sign(event.deltaY));
  redraw();
}

export function startTools() {
  canvas.addEventListener("pointerdown", press);
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerup", endGesture);
  canvas.addEventListener("pointercancel", endGesture);
  canvas.addEventListener("pointerleave", () => { app.hover = null; redraw(); });
  canvas.addEventListener("wheel", wheel, { passive: false });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  window.addEventListener("pagehide", () => endGesture());
}
