// Asks for a session, again and again while the server is full or cannot be reached.

import { createSession, Refusal } from "./api.js";
import { countDown, showProblem, showState } from "./view.js";

const RETRY_S = 2;

// The session; null when it was refused, or is not wanted any more. onTry() is called before each try.
export async function sessionFor(token, request, isCurrent, onTry) {
  while (isCurrent()) {
    showState("connecting");
    onTry();
    try {
      return await createSession(token, request);
    } catch (error) {
      if (!isCurrent() || !(await mayTryAgain(error, isCurrent))) return null;
    }
  }
  return null;
}

// Say why there is no session; true when it is time to try again.
async function mayTryAgain(error, isCurrent) {
  if (error instanceof Refusal && !error.retryAfter) {
    showState(error.status === 401 ? "locked" : "idle");
    showProblem(error.message);
    return false;
  }
  if (!(error instanceof Refusal)) showState("lost");
  else if (error.code === "full") showState("full");
  else showState("full", error.message);
  await countDown(error.retryAfter ?? RETRY_S, isCurrent);
  return true;
}
