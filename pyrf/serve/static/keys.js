// The keyboard: Enter sends a prompt, Escape leaves a field, the space bar pauses.

const byId = (id) => document.getElementById(id);

export function listenToKeys(togglePause) {
  for (const id of ["prompt", "second"]) byId(id).addEventListener("keydown", sendOnEnter);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("textarea, input, select, button, a");
    if (event.key === "Escape") event.target.blur();
    else if (event.key === " " && !typing && !event.repeat) {
      event.preventDefault();
      togglePause();
    }
  });
}

function sendOnEnter(event) {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("form").requestSubmit();
}
