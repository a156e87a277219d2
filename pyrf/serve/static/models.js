// The choice of a model, where the server has several. A stream keeps its model: it is stopped before another is chosen.

import { readLink } from "./link.js";

const byId = (id) => document.getElementById(id);

export class Models {
  #shown = null; // the model that the page is about

  // onChoose: called when somebody has chosen another one.
  constructor(onChoose) {
    this.chosen = readLink().model; // undefined: the server's first, and of servers that have one
    byId("model").addEventListener("change", () => {
      this.chosen = byId("model").value;
      onChoose();
    });
  }

  // What the server says of the one that the page is about; older servers do not list them.
  show({ model, models = [] }) {
    const several = models.length > 1;
    this.#shown = model;
    this.chosen = several ? model : undefined;
    const options = models.map((name) => new Option(name, name, false, name === model));
    byId("model").replaceChildren(...options);
    byId("model-field").hidden = !several;
  }

  // Choose the model of a stream or of a link; whether the page is about another one.
  choose(name) {
    if (!name || name === this.#shown) return false;
    this.chosen = name;
    return true;
  }
}
