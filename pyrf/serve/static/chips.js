// A button per phrase of the card's choices. What is picked is what the prompt's text holds, and nothing else.

import { Choices } from "./choices.js";

const byId = (id) => document.getElementById(id);

export class Chips {
  #choices = new Choices([]);
  #buttons = []; // [{ group, phrase, button }]

  // onPick: called after a press has changed the prompt.
  constructor(onPick) {
    this.onPick = onPick;
    byId("prompt").addEventListener("input", () => this.refresh());
  }

  // choices: a group's name -> its phrases.
  show(choices) {
    this.#choices = new Choices(Object.entries(choices));
    this.#buttons = [];
    byId("choices").replaceChildren(...this.#choices.groups.map((group, i) => this.#groupOf(group, i)));
    byId("choices").hidden = byId("surprise").hidden = !this.#buttons.length;
    this.refresh();
  }

  // Put a text into the prompt box.
  write(text) {
    byId("prompt").value = text;
    this.refresh();
  }

  surprise() {
    this.write(this.#choices.random());
  }

  refresh() {
    const found = this.#choices.in(byId("prompt").value);
    for (const { group, phrase, button } of this.#buttons) {
      button.setAttribute("aria-pressed", found.get(group)?.phrase === phrase);
    }
  }

  #groupOf([name, phrases], i) {
    const title = Object.assign(document.createElement("span"), { id: `choice-${i}`, textContent: name });
    const row = Object.assign(document.createElement("div"), { className: "group", role: "group" });
    row.setAttribute("aria-labelledby", title.id);
    row.append(title, ...phrases.map((phrase) => this.#chip(name, phrase)));
    return row;
  }

  #chip(group, phrase) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: phrase });
    button.onclick = () => {
      const text = byId("prompt").value;
      const picked = button.ariaPressed === "true";
      this.write(picked ? this.#choices.drop(text, group) : this.#choices.pick(text, group, phrase));
      this.onPick();
    };
    this.#buttons.push({ group, phrase, button });
    return button;
  }
}
