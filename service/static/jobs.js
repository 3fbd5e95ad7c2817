"use strict";
// What the service works on, or keeps, for this page: it ends with the page, whatever is lost on the way there or back.

const LATE_S = 1;        // after which a job that was not there is deleted again: it may have been on its way
const AGAIN_S = 8;       // after which a service that does not answer is asked again to delete one
const MOST_DELETIONS = 75;
const LONG_S = 5;        // of work that nobody leaves by mistake
const jobs = new Map();  // when each was sent (ms), by its id
const unwanted = new Set();   // ids of those whose end the service has not confirmed

// The page chooses the ids, which nobody can guess: so it knows a job before the answer says that there is one.
function newJob() {
  const id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  jobs.set(id, performance.now());
  return id;
}

// What runs ends, what is kept makes room.
async function release(id, times = 1) {
  jobs.delete(id);
  unwanted.add(id);
  const answer = await fetch(`jobs/${id}`, { method: "DELETE", keepalive: true }).catch(() => null);
  const isAway = !answer || answer.status >= 500, isLate = answer?.status === 404 && times === 1;
  if (!unwanted.has(id)) return;   // `online` was quicker
  if ((isAway || isLate) && times < MOST_DELETIONS) setTimeout(() => unwanted.has(id) && release(id, times + 1), 1000 * (isAway ? AGAIN_S : LATE_S));
  else unwanted.delete(id);
}

function releaseAll() {
  for (const id of [...jobs.keys(), ...unwanted]) release(id);
}

addEventListener("online", () => [...unwanted].forEach((id) => release(id)));
addEventListener("beforeunload", (event) => {
  if (performance.now() - Math.min(...jobs.values()) > 1000 * LONG_S) event.preventDefault();
});
