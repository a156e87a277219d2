// The figures below the video: measured here, but for what a chunk took the model.

const FPS_WINDOW_MS = 2_000;

const byId = (id) => document.getElementById(id);
const milliseconds = (value) => (value < 10_000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`);

export class Figures {
  #shown = [];
  #sent = new Map(); // ref of a prompt -> when it was sent
  #refs = 0;
  #asked = new Map(); // prompt id -> when it was sent
  #startedAt = null;

  constructor() {
    setInterval(() => this.#showFps(), 500);
  }

  // A new session was asked for at `now`.
  begin(now) {
    this.#shown = [];
    this.#asked = new Map([[0, now]]);
    this.#startedAt = now;
    for (const field of document.querySelectorAll("#figures dd")) field.textContent = "–";
  }

  session({ id, seed }) {
    byId("session").textContent = id;
    byId("seed-shown").textContent = seed;
  }

  // A prompt is sent at `now`; the ref to send with it.
  promptSent(now) {
    const ref = (this.#refs += 1);
    this.#sent = new Map([...this.#sent].slice(-8)).set(ref, now);
    return ref;
  }

  // A prompt got an id, as the server says at `now`.
  promptTaken({ prompt_id: id, ref }, now) {
    this.#asked.set(id, this.#sent.get(ref) ?? now);
    this.#sent.delete(ref);
  }

  chunk({ compute_ms: ms, dropped }) {
    byId("chunk-latency").textContent = milliseconds(ms);
    byId("dropped").textContent = dropped;
  }

  // A frame reached the screen.
  frame({ frame, prompt_id: promptId }, now) {
    this.#shown.push(now);
    byId("frame").textContent = frame;
    if (this.#startedAt !== null) byId("first-frame").textContent = milliseconds(now - this.#startedAt);
    this.#startedAt = null;
    const askedAt = this.#asked.get(promptId);
    if (askedAt === undefined) return;
    byId("prompt-latency").textContent = milliseconds(now - askedAt);
    for (const id of this.#asked.keys()) if (id <= promptId) this.#asked.delete(id);
  }

  #showFps() {
    const now = performance.now();
    this.#shown = this.#shown.filter((at) => now - at < FPS_WINDOW_MS);
    if (this.#shown.length < 2) {
      if (byId("fps").textContent !== "–") byId("fps").textContent = "0";
      return;
    }
    const seconds = (this.#shown.at(-1) - this.#shown[0]) / 1000;
    byId("fps").textContent = ((this.#shown.length - 1) / seconds).toFixed(1);
  }
}
