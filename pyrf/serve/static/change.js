// Where the newest prompt stands: queued, on its way into the picture, or in force. Over the video, so that nothing
// moves.

const byId = (id) => document.getElementById(id);

export class Change {
  #promptId = null; // that is waited for
  #fullS = null;

  clear() {
    this.#promptId = null;
    this.#show("", "");
  }

  // The server took a prompt; older servers do not say when it will be seen.
  taken({ prompt_id: id, at_s: atS, full_s: fullS }) {
    this.#promptId = id;
    this.#fullS = fullS;
    this.#show("queued", atS === null || atS === undefined ? "Queued" : `Queued, shows at ${clock(atS)}`);
  }

  // A frame reached the screen.
  frame({ prompt_id: id, prompt_progress: progress = 1, pts_s: atS }) {
    if (this.#promptId === null || id < this.#promptId) return;
    if (progress < 1) {
      this.#show("changing", `Changing, ${Math.round(100 * progress)} %, whole at ${clock(this.#fullS)}`);
      return;
    }
    this.#promptId = null;
    this.#show("in-force", `In force since ${clock(atS)}`);
  }

  #show(state, text) {
    const line = byId("change");
    if (line.dataset.state === state && line.textContent === text) return;
    line.dataset.state = state;
    line.textContent = text;
  }
}

// Seconds of the stream, as m:ss.s.
const clock = (seconds) => {
  const tenths = Math.round(10 * seconds);
  return `${Math.floor(tenths / 600)}:${((tenths % 600) / 10).toFixed(1).padStart(4, "0")}`;
};
