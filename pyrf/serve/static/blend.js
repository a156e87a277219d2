// What the prompt box and the controls of a change say together: a text or two with their shares, and seconds.

const byId = (id) => document.getElementById(id);

const LONGEST_S = 60;

export class Blend {
  // onPick: called after the share of the second prompt was moved.
  constructor(onPick) {
    byId("blend").addEventListener("click", () => this.#open(byId("blending").hidden));
    byId("share-of-second").addEventListener("input", () => this.#show());
    byId("share-of-second").addEventListener("change", onPick);
  }

  // The prompt as the server takes it; null where there is none.
  prompt() {
    const first = byId("prompt").value.trim();
    const second = byId("blending").hidden ? "" : byId("second").value.trim();
    if (!first || !second || second === first) return first || null;
    const share = byId("share-of-second").valueAsNumber / 100;
    return { [first]: 1 - share, [second]: share };
  }

  // Seconds of a change.
  over() {
    return Math.min(Math.max(byId("over").valueAsNumber || 0, 0), LONGEST_S);
  }

  #open(open) {
    byId("blending").hidden = !open;
    byId("blend").setAttribute("aria-expanded", open);
    this.#show();
    if (open) byId("second").focus();
  }

  #show() {
    byId("share-shown").textContent = `${byId("share-of-second").value} %`;
  }
}
