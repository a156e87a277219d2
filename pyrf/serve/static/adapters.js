// A slider per adapter of the served model. A stream that runs follows while a slider is moved.

const byId = (id) => document.getElementById(id);

const LEAST = 0, MOST = 1.5, STEP = 0.05;
const PAUSE_MS = 250; // between messages: a server takes some five a second

export class Adapters {
  #sliders = new Map(); // name -> { slider, output }
  #moved = new Map(); // name -> strength that somebody chose here
  #timer = 0;

  // onChange(strengths): called with what was moved, not too often.
  constructor(onChange) {
    this.onChange = onChange;
  }

  show({ adapters = [], adapters_live: live }) {
    this.#sliders.clear();
    this.#moved.clear(); // they may be another model's
    byId("adapter-list").replaceChildren(...adapters.map((adapter, i) => this.#row(adapter, i, live)));
    byId("adapters").hidden = !adapters.length;
    byId("adapters-fixed").hidden = live;
  }

  // What the server says of them; a slider in use stays under its hand.
  told(strengths) {
    for (const [name, strength] of Object.entries(strengths)) {
      const { slider, output } = this.#sliders.get(name) ?? {};
      if (!slider || (this.#timer && this.#moved.has(name))) continue;
      fit(slider, strength);
      output.textContent = strength.toFixed(2);
    }
  }

  // What was chosen on this page, for a stream that begins.
  get chosen() {
    return Object.fromEntries(this.#moved);
  }

  #row({ name, strength }, i, live) {
    const label = Object.assign(document.createElement("label"), { htmlFor: `adapter-${i}`, textContent: name });
    const slider = Object.assign(document.createElement("input"), { type: "range", id: `adapter-${i}`, step: STEP });
    const output = Object.assign(document.createElement("output"), { textContent: strength.toFixed(2) });
    output.htmlFor = slider.id;
    fit(slider, strength);
    slider.disabled = !live;
    slider.oninput = () => {
      output.textContent = slider.valueAsNumber.toFixed(2);
      this.#moved.set(name, slider.valueAsNumber);
      this.#timer ||= setTimeout(() => {
        this.#timer = 0;
        this.onChange(this.chosen);
      }, PAUSE_MS);
    };
    const row = Object.assign(document.createElement("div"), { className: "slider" });
    row.append(label, slider, output);
    this.#sliders.set(name, { slider, output });
    return row;
  }
}

function fit(slider, strength) {
  slider.min = Math.min(LEAST, strength);
  slider.max = Math.max(MOST, strength);
  slider.value = strength;
}
