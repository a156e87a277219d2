// Plays JPEG frames on a canvas at the stream's rate, from a small buffer that evens out the network.

const START_S = 0.1; // buffered before playing starts, or starts again after running dry
const GAP_S = 0.5; // a larger hole in the stream is jumped over
const HIGH_S = 1.6; // with more than this waiting, play faster until it is less
const FULL_S = 4; // with more than this waiting, drop the oldest
const HIDDEN_S = 1; // the same in the background, where nothing is drawn
const FASTER = 1.1;
const LONGEST_STEP_S = 0.25; // of the clock between two redraws
const DECODED_AHEAD = 8;

export class Player {
  #queue = [];
  #clock = null; // seconds of the stream; null before its first frame
  #dry = true;
  #last = 0;
  #paused = false;

  constructor(canvas, onShown) {
    Object.assign(this, { canvas, onShown, fps: 16 });
    this.context = canvas.getContext("2d", { alpha: false });
    requestAnimationFrame((now) => this.#tick(now));
  }

  push(header, blob) {
    this.#queue.push({ header, blob, bitmap: null });
    while (this.#waiting() > (document.hidden ? HIDDEN_S : FULL_S)) this.#drop();
  }

  set paused(value) {
    this.#paused = value;
  }

  reset() {
    while (this.#queue.length) this.#drop();
    this.#clock = null;
    this.#dry = true;
  }

  #waiting() {
    return this.#queue.length / this.fps;
  }

  #drop() {
    this.#queue.shift().bitmap?.then((bitmap) => bitmap?.close());
  }

  #tick(now) {
    requestAnimationFrame((next) => this.#tick(next));
    const elapsed = (now - this.#last) / 1000;
    this.#last = now;
    for (const item of this.#queue.slice(0, DECODED_AHEAD)) {
      item.bitmap ??= createImageBitmap(item.blob).then(
        (bitmap) => (item.ready = bitmap),
        () => (item.broken = true) && null,
      );
    }
    if (this.#paused) return;
    if (this.#clock !== null) this.#clock += Math.min(elapsed, LONGEST_STEP_S) * (this.#waiting() > HIGH_S ? FASTER : 1);
    if (!this.#queue.length) return;
    this.#align(this.#queue[0].header.pts_s);
    this.#show();
  }

  // Start anew from a frame that came too late, or after a hole.
  #align(first) {
    const late = this.#dry && this.#clock - first > 2 / this.fps;
    if (this.#clock === null || late || first - this.#clock > GAP_S) this.#clock = first - START_S;
    this.#dry = false;
  }

  // Show the newest frame that is due; a late decoder holds the picture instead of skipping it.
  #show() {
    let due = null;
    while (this.#queue.length && this.#queue[0].header.pts_s <= this.#clock) {
      const item = this.#queue[0];
      if (!item.ready && !item.broken) break;
      this.#queue.shift();
      due?.ready.close();
      due = item.ready ? item : null;
    }
    if (!due) return;
    const { width, height } = due.ready;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.context.drawImage(due.ready, 0, 0);
    due.ready.close();
    this.#dry = !this.#queue.length;
    this.onShown(due.header);
  }
}
