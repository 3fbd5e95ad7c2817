"use strict";
// What the page asks of the service.

const OPTIONS = ["model", "channel", "axes", "threshold", "min_area", "min_score", "link", "scale"];
const AWAY = [502, 503, 504];   // what proxies say of a service, and it of itself, that will answer later
const MOST_BUSY_S = 600;        // that are waited for one answer of a service that says when to ask again
const MOST_AWAY_S = 60;         // and of one that does not answer at all
const MOST_PAUSE_S = 8;         // between two questions of those
const LONGEST_REQUEST_S = 45;   // what takes longer is sent as a job: most proxies hang up after a minute
const LOOK_S = 2;               // how often a job is looked after
const MOST_SENDINGS = 3;        // of a job that is lost
const jobs = new Set();         // what the service works on, or keeps, for this page

function query(path, given, names) {
  given.output = $("output").value;
  $("link").disabled = given.output !== "labels";   // which alone have numbers
  const fields = names.map($).filter((field) => !field.disabled);
  for (const field of fields) field.setAttribute("aria-invalid", field.validity.badInput);
  const bad = fields.find((field) => field.validity.badInput);
  if (bad) throw new Error(`${bad.labels[0].firstChild.textContent.trim()} is no number; left empty it is ${bad.placeholder}.`);
  for (const field of fields) if (field.value) given[field.id] = field.value;
  if ($("mirror").checked) given.mirror = "true";
  if ($("fit").checked) given.scale = "auto";   // in place of a number
  return `${path}?` + new URLSearchParams(given);
}

// The error that an answer is; `again` where the same question may have a better answer later.
function refused(problem, status) {
  const is = (name) => problem.type?.endsWith(`/${name}`) ?? false;
  return Object.assign(new Error(problem.detail || problem.title || `The service answers ${status}.`), {
    again: status >= 500, unknownModel: is("unknown-model"), tooLong: status === 504, lost: is("job-lost") || is("unknown-job"), noJobs: is("jobs-off"), wait: problem.retry_after_s,
  });
}

// Headers and body of an answer, which is read as "json" or "blob". A service that is busy or away is asked again, and so is one
// whose answer breaks off: an image has one answer.
async function insist(send, read, file, work) {
  const left = { busy: MOST_BUSY_S, away: MOST_AWAY_S };
  const absent = (error) => {
    if (error.name === "AbortError") throw error;
    return null;
  };
  for (let next = 0.5, broken = false; ; ) {
    const answer = await send().catch(absent);
    if (answer?.ok) {
      const body = await answer[read]().catch(absent);
      if (body !== null) return { headers: answer.headers, body };
      if (broken) throw Object.assign(new Error("The answer broke off twice; try it again."), { again: true });
      broken = true;
      continue;
    }
    if (!answer) await file.slice(0, 1).arrayBuffer().catch(() => { throw new Error(`${file.name} cannot be read any more; choose it again.`); });
    const problem = await answer?.json().catch(() => null) ?? {}, told = Number(answer?.headers.get("retry-after"));
    const error = answer ? refused(problem, answer.status) : Object.assign(new Error("The service does not answer."), { again: true });
    const isBusy = told > 0 && (AWAY.includes(answer.status) || answer.status === 409), isAway = !answer || (AWAY.includes(answer.status) && !problem.type && !error.tooLong);
    if (error.lost || !(isBusy || isAway)) throw error;
    const seconds = isBusy ? told : next;
    left[isBusy ? "busy" : "away"] -= seconds;
    if (left.busy < 0 || left.away < 0) throw error;
    if (!isBusy) next = Math.min(2 * next, MOST_PAUSE_S);
    await work.pause(answer ? problem.title ?? "The service is busy" : "The service does not answer", seconds);
  }
}

// The answer for an image, and whether it came as a job, which takes as long as it needs. What is too long for a request becomes one.
async function ask(file, address, read, work, asJob) {
  const post = (headers) => () => fetch(address, { method: "POST", body: file, signal: work.signal, headers });
  let late = null;
  try {
    if (!asJob) return { ...await insist(post({}), read, file, work), asJob };
  } catch (error) {
    if (!error.tooLong) throw error;
    late = error;
  }
  for (let sent = 1; ; sent++) {
    const job = await insist(post({ Prefer: "respond-async" }), "json", file, work).then((answer) => answer.body, (error) => {
      if (!error.noJobs) throw error;
    });
    if (!job && late) throw late;
    if (!job) return ask(file, address, read, work, false);
    jobs.add(job.id);
    try {
      await over(job, file, work);
      return { ...await insist(() => fetch(`jobs/${job.id}/result`, { signal: work.signal }), read, file, work), asJob: true };
    } catch (error) {
      if (!(error.lost || error.wait) || sent === MOST_SENDINGS) throw error;
      if (error.wait) await work.pause(error.message, error.wait);
    } finally {
      release(job.id);
    }
  }
}

// Waits until a job is done, and says how far it is.
async function over(job, file, work) {
  const look = () => fetch(`jobs/${job.id}?wait=${LOOK_S}`, { signal: work.signal });
  for (let report = job; report.state !== "done"; report = (await insist(look, "json", file, work)).body) {
    if (report.state === "failed") throw refused(report.problem, report.problem.status);
    const rest = report.seconds_left === null ? "" : `, about ${duration(report.seconds_left)} left`;
    work.note = (report.state === "queued" ? `, ${place(report.jobs_before)}` : ` · ${Math.floor(100 * report.pixels_done / report.pixels)} %`) + rest;
  }
  work.note = "";
}

function place(before) {   // null where the replica that answers does not know
  if (!before) return before === 0 ? "next in the queue" : "in the queue";
  return before === 1 ? "1 job before yours" : `${before} jobs before yours`;
}

function release(id) {   // what runs ends, what is kept makes room
  jobs.delete(id);
  fetch(`jobs/${id}`, { method: "DELETE", keepalive: true }).catch(() => null);
}

// What the service expects to need for the image; null where its size is not known before it is decoded.
async function forecast(file, signal) {
  const size = $("axes").value ? null : await measured(file).catch(() => null);   // which the axes may change
  if (!size) return null;
  const given = { size: `${size.height}x${size.width}`, planes: size.planes, format: "rle" };
  const answer = await fetch(query("plan", given, ["model", "channel", "scale"]), { signal }).catch(() => null);
  const plan = await answer?.json().catch(() => null), refusal = answer?.status === 413 ? plan : plan?.refusal;
  // only the service knows for sure how the pages of a file make planes, and what its bits take
  if (refusal?.type.endsWith("/image-too-large") && size.planes === 1) throw new Error(refusal.detail);
  return answer?.ok ? { ...plan, isLong: plan.expected_seconds > LONGEST_REQUEST_S || (refusal?.type.endsWith("/deadline-exceeded") ?? false) } : null;
}

addEventListener("pagehide", () => jobs.forEach(release));
