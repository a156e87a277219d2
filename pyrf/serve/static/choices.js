// A card's choices in a text: which phrases it holds, and the text with another phrase.

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
const plain = (text) => text.toLowerCase().replace(/\s+/g, " ").trim();

export class Choices {
  #pattern = null;
  #known = new Map(); // plain phrase -> { group, phrase }

  // groups: [[name, [phrase, ...]], ...], in the order of a prompt.
  constructor(groups) {
    this.groups = groups;
    for (const [group, phrases] of groups) {
      for (const phrase of phrases) this.#known.set(plain(phrase), { group, phrase });
    }
    if (!this.#known.size) return;
    const longestFirst = [...this.#known.keys()].sort((a, b) => b.length - a.length);
    const any = longestFirst.map((phrase) => escaped(phrase).replaceAll(" ", "\\s+")).join("|");
    this.#pattern = new RegExp(`(?<![\\p{L}\\p{N}])(?:${any})(?![\\p{L}\\p{N}])`, "giu");
  }

  // A group's name -> the first of its phrases in a text: { group, phrase, start, end }.
  in(text) {
    const found = new Map();
    if (!this.#pattern) return found;
    for (const match of text.matchAll(this.#pattern)) {
      const known = this.#known.get(plain(match[0]));
      if (!known || found.has(known.group)) continue;
      found.set(known.group, { ...known, start: match.index, end: match.index + match[0].length });
    }
    return found;
  }

  // The text with a phrase as its choice of a group, in the place of the one that it had.
  pick(text, group, phrase) {
    const found = this.in(text);
    const old = found.get(group);
    if (old) return text.slice(0, old.start) + phrase + text.slice(old.end);
    const later = this.groups.slice(this.groups.findIndex(([name]) => name === group) + 1);
    const next = later.map(([name]) => found.get(name)).find(Boolean);
    if (!next) return joined([text.replace(/[\s,.]+$/, ""), phrase]);
    const before = text.slice(0, next.start);
    const glue = /(^|,)\s*$/.test(before) ? ", " : " "; // within a sentence the phrase becomes a part of it
    return before + phrase + glue + text.slice(next.start);
  }

  // The text without its choice of a group.
  drop(text, group) {
    const old = this.in(text).get(group);
    if (!old) return text;
    const rest = text.slice(0, old.start) + text.slice(old.end);
    return rest.replace(/\s+/g, " ").replace(/( ?,)+/g, ",").replace(/^[, ]+|[, ]+$/g, "");
  }

  // One phrase of each group.
  random() {
    return joined(this.groups.map(([, phrases]) => phrases[Math.floor(Math.random() * phrases.length)]));
  }
}

const joined = (phrases) => phrases.filter(Boolean).join(", ");
