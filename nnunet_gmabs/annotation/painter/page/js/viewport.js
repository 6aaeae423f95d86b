// From pixels of the picture to places on the canvas and back: true proportions in mm, zoom and pan.

import { plane } from "./state.js";

const MARGIN = 34; // room for the letters
const view = { scale: 1, left: 0, top: 0, width: 1, height: 1, fitted: true }; // scale: canvas units per mm

export const zoomFactor = () => view.scale;

export function resize(width, height) {
  const middle = view.fitted ? null : toPicture(view.width / 2, view.height / 2);
  Object.assign(view, { width, height });
  if (middle) centre(middle);
  else fit();
}

export function fit() {
  const { rows, columns, pixel_mm: [h, w] } = plane();
  view.scale = Math.max(0.01, Math.min((view.width - 2 * MARGIN) / (columns * w), (view.height - 2 * MARGIN) / (rows * h)));
  view.left = (view.width - columns * w * view.scale) / 2;
  view.top = (view.height - rows * h * view.scale) / 2;
  view.fitted = true;
}

function centre({ x, y }) {
  const [h, w] = plane().pixel_mm;
  view.left = view.width / 2 - x * w * view.scale;
  view.top = view.height / 2 - y * h * view.scale;
}

// Zoom by a factor, keeping what is under a place of the canvas there.
export function zoom(factor, atX = view.width / 2, atY = view.height / 2) {
  const scale = Math.min(400, Math.max(0.05, view.scale * factor));
  view.left = atX - (atX - view.left) * (scale / view.scale);
  view.top = atY - (atY - view.top) * (scale / view.scale);
  view.scale = scale;
  view.fitted = false;
}

export function pan(dx, dy) {
  view.left += dx;
  view.top += dy;
  view.fitted = false;
}

export function toCanvas(x, y) {
  const [h, w] = plane().pixel_mm;
  return { x: view.left + x * w * view.scale, y: view.top + y * h * view.scale };
}

export function toPicture(x, y) {
  const [h, w] = plane().pixel_mm;
  return { x: (x - view.left) / (w * view.scale), y: (y - view.top) / (h * view.scale) };
}

// Size of one pixel of the picture on the canvas.
export function pixelSize() {
  const [h, w] = plane().pixel_mm;
  return { width: w * view.scale, height: h * view.scale };
}

export function pictureBox() {
  const { rows, columns } = plane(), { width, height } = pixelSize();
  return { left: view.left, top: view.top, width: columns * width, height: rows * height };
}
