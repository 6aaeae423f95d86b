// What the page knows: the round, the open scan and its planes, and how they are looked at.

import { api } from "./api.js";

export const app = {
  round: null,
  scan: null, // as the server describes it; its planes get mask, crossings and proposal when they are loaded
  current: 0, // place of the open plane in scan.planes
  offset: 0, // how many planes away we look: 0 paints, others are read-only
  tool: "brush",
  value: 1, // class being painted
  size: 6, // brush diameter, in the plane's smaller pixel side
  channel: 0,
  windows: [], // level and width of each channel
  opacity: 0.35,
  showPaint: true,
  showLines: true,
  showProposal: false,
  smooth: true,
  hover: null, // pointer in pixels of the picture
  lasso: null, // points of the outline being drawn
  prompt: null, // box and points for the generalist, and the mask it gave
};

const pictures = new Map();

export const plane = () => app.scan.planes[app.current];
export const shownIndex = () => plane().index + app.offset;
export const currentWindow = () => app.windows[app.channel];
export const classOf = (value) => app.round.classes.find((c) => c.value === value);
export const brushMm = () => app.size * Math.min(...plane().pixel_mm);
export const isLocked = () => plane().done || app.offset !== 0;
export const hasPaint = (p) => Boolean(p.mask && p.mask.some((v) => v !== 0));

export function forgetPictures() { pictures.clear(); }

const pictureKey = (axis, index, channel) => `${axis}/${index}/${channel}`;

// The grey values of a plane, or null while they are on their way.
export function pictureOf(p, index, channel = app.channel) {
  return pictures.get(pictureKey(p.axis, index, channel)) ?? null;
}

export async function loadPicture(p, index, channel = app.channel) {
  const key = pictureKey(p.axis, index, channel), scan = app.scan;
  if (index < 0 || index >= p.count || pictures.has(key)) return;
  const picture = await api.image(scan.identifier, { axis: p.axis, index }, channel);
  if (app.scan === scan) pictures.set(key, picture);
}

export function adopt(p, state, mask = null) {
  Object.assign(p, state);
  if (mask) p.mask = mask;
}

export async function loadPainting(p) {
  const { state, mask } = await api.mask(app.scan.identifier, p);
  adopt(p, state, mask);
}

export async function loadCrossings(p) {
  p.crossings = await api.crossings(app.scan.identifier, p);
}

export async function loadPlane(p) {
  await Promise.all([
    loadPicture(p, p.index), loadPainting(p), loadCrossings(p),
    app.scan.has_proposal ? api.proposal(app.scan.identifier, p).then((mask) => { p.proposal = mask; }) : null,
  ]);
}
