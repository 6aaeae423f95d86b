// Painting on a mask: pure functions on {rows, columns, pixel_mm: [height, width]} and a Uint8Array, row by row.
// x and y are in pixels; the middle of the first pixel is (0.5, 0.5).

// Paint a round stamp of a diameter in mm. Never fewer pixels than the one under the middle.
export function stamp(plane, mask, x, y, diameterMm, value) {
  const [height, width] = plane.pixel_mm;
  const radius = diameterMm / 2 + 1e-6;
  const top = Math.max(0, Math.floor(y - radius / height)), bottom = Math.min(plane.rows - 1, Math.floor(y + radius / height));
  const left = Math.max(0, Math.floor(x - radius / width)), right = Math.min(plane.columns - 1, Math.floor(x + radius / width));
  for (let row = top; row <= bottom; row++) {
    for (let column = left; column <= right; column++) {
      const dy = (row + 0.5 - y) * height, dx = (column + 0.5 - x) * width;
      if (dx * dx + dy * dy <= radius * radius) mask[row * plane.columns + column] = value;
    }
  }
  const row = Math.floor(y), column = Math.floor(x);
  if (row >= 0 && row < plane.rows && column >= 0 && column < plane.columns) mask[row * plane.columns + column] = value;
}

// Stamp along a line, densely enough that no gap is left.
export function stroke(plane, mask, from, to, diameterMm, value) {
  const [height, width] = plane.pixel_mm;
  const steps = Math.max(1, Math.ceil(4 * Math.max(Math.abs(to.x - from.x), Math.abs(to.y - from.y)) *
    Math.min(1, Math.min(height, width) / Math.max(diameterMm / 4, 1e-3))));
  for (let i = 0; i <= steps; i++) {
    const t = i / steps;
    stamp(plane, mask, from.x + t * (to.x - from.x), from.y + t * (to.y - from.y), diameterMm, value);
  }
}

// Paint every pixel whose middle lies inside a closed outline (even-odd rule).
export function fillOutline(plane, mask, points, value) {
  for (let row = 0; row < plane.rows; row++) {
    const y = row + 0.5, cuts = [];
    points.forEach((a, i) => {
      const b = points[(i + 1) % points.length];
      if ((a.y <= y) !== (b.y <= y)) cuts.push(a.x + ((y - a.y) / (b.y - a.y)) * (b.x - a.x));
    });
    cuts.sort((a, b) => a - b);
    for (let i = 0; i + 1 < cuts.length; i += 2) {
      const first = Math.max(0, Math.ceil(cuts[i] - 0.5)), last = Math.min(plane.columns - 1, Math.ceil(cuts[i + 1] - 0.5) - 1);
      for (let column = first; column <= last; column++) mask[row * plane.columns + column] = value;
    }
  }
}

// The connected pixels of one value around a pixel, as indices; open = they reach the picture's edge.
export function region(plane, mask, column, row) {
  const { rows, columns } = plane, wanted = mask[row * columns + column];
  const seen = new Uint8Array(mask.length), found = [row * columns + column];
  let open = false;
  seen[found[0]] = 1;
  for (let next = 0; next < found.length; next++) {
    const r = Math.floor(found[next] / columns), c = found[next] % columns;
    if (r === 0 || c === 0 || r === rows - 1 || c === columns - 1) open = true;
    for (const [nr, nc] of [[r - 1, c], [r + 1, c], [r, c - 1], [r, c + 1]]) {
      const i = nr * columns + nc;
      if (nr >= 0 && nc >= 0 && nr < rows && nc < columns && !seen[i] && mask[i] === wanted) { seen[i] = 1; found.push(i); }
    }
  }
  return { pixels: found, open };
}

// The borders of one value as a path along pixel edges, in pixels; neighbouring edges become one line.
export function border(plane, mask, value) {
  const { rows, columns } = plane, path = new Path2D();
  const has = (row, column) => row >= 0 && column >= 0 && row < rows && column < columns && mask[row * columns + column] === value;
  for (let row = 0; row <= rows; row++) {
    for (let column = 0, start = -1; column <= columns; column++) {
      const edge = column < columns && has(row - 1, column) !== has(row, column);
      if (edge && start < 0) start = column;
      if (!edge && start >= 0) { path.moveTo(start, row); path.lineTo(column, row); start = -1; }
    }
  }
  for (let column = 0; column <= columns; column++) {
    for (let row = 0, start = -1; row <= rows; row++) {
      const edge = row < rows && has(row, column - 1) !== has(row, column);
      if (edge && start < 0) start = row;
      if (!edge && start >= 0) { path.moveTo(column, start); path.lineTo(column, row); start = -1; }
    }
  }
  return path;
}

// Indices where this plane and a crossing one both say something, and not the same. 255 = nothing said.
export function disagreements(plane) {
  const found = [];
  plane.crossings.forEach((other, i) => {
    const here = plane.done || plane.mask[i] ? plane.mask[i] : 255;
    if (other !== 255 && here !== 255 && other !== here) found.push(i);
  });
  return found;
}
