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
const kept = {};                // by what is read: the job that goes on while the service is away

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

// Headers and body of an answer, which is read as "json" or "blob". A service that is busy or away is asked again, and so is one
// whose answer breaks off: an image has one answer.
async function insist(send, read, file, work) {
  const left = { busy: MOST_BUSY_S, away: MOST_AWAY_S };
  const absent = (error) => {
    if (error.name === "AbortError") throw error;
    return null;
  };
  for (let next = 0.5, broken = false; ; ) {
    const asked = performance.now(), answer = await send().catch(absent);
    if (answer?.ok) {
      const body = await answer[read]().catch(absent);
      if (body !== null) return { headers: answer.headers, body };
      if (broken) throw Object.assign(new Error("The answer broke off twice; try it again."), { again: true, away: true });
      broken = true;
      continue;
    }
    if (!answer) await file.slice(0, 1).arrayBuffer().catch(() => { throw new Error(`${file.name} cannot be read any more; choose it again.`); });
    const problem = await answer?.json().catch(() => null) ?? {}, told = Number(answer?.headers.get("retry-after"));
    const error = answer ? refused(problem, answer.status) : Object.assign(new Error("The service does not answer."), { again: true });
    const isBusy = told > 0 && (AWAY.includes(answer.status) || answer.status === 409), isAway = !answer || (AWAY.includes(answer.status) && !problem.type && !error.tooLong);
    if (error.lost || !(isBusy || isAway)) throw error;
    const seconds = isBusy ? told : next;
    if (isBusy) left.busy -= seconds + (performance.now() - asked) / 1000;
    else left.away -= seconds;
    error.away = isAway;
    if (left.busy < 0 || left.away < 0) throw error;
    if (!isBusy) next = Math.min(2 * next, MOST_PAUSE_S);
    await work.pause(answer ? problem.title ?? "The service is busy" : "The service does not answer", seconds);
  }
}

function post(file, address, work, headers = {}) {
  // percent-encoded: headers have no other letters (RFC 8187)
  const named = { "Content-Disposition": `attachment; filename*=UTF-8''${encodeURIComponent(file.name)}` };
  return () => fetch(address, { method: "POST", body: file, signal: work.signal, headers: { ...named, ...headers } });
}

// The answer for an image, and whether it came as a job, which takes as long as it needs. What is too long for a request becomes one.
async function ask(file, address, read, work, asJob) {
  let job = kept[read], late = null;
  delete kept[read];
  if (job && (job.file !== file || job.address !== address)) {
    release(job.id);
    job = null;
  }
  try {
    if (!asJob && !job) return { ...await insist(post(file, address, work), read, file, work), asJob };
  } catch (error) {
    if (!error.tooLong) throw error;
    late = error;
  }
  for (let sent = 1; ; sent++) {
    work.note = "";
    job ??= await accepted(file, address, work);
    if (!job && late) throw late;
    if (!job) return ask(file, address, read, work, false);
    const { id } = job;
    try {
      await over(job, file, work);
      const answer = await insist(() => fetch(`jobs/${id}/result`, { signal: work.signal }), read, file, work);
      release(id);
      return { ...answer, asJob: true };
    } catch (error) {
      if (error.away) kept[read] = { id, file, address };
      else release(id);
      if (!(error.lost || error.wait) || sent === MOST_SENDINGS) throw error;
      if (error.wait) await work.pause(error.message, error.wait);
      job = null;
    }
  }
}

// Makes a job of an image, and returns its first report, or its id alone; null where the service takes none.
async function accepted(file, address, work) {
  const id = newJob();
  try {
    const { body } = await insist(post(file, address, work, { Prefer: `respond-async; id=${id}` }), "json", file, work);
    jobs.delete(id);
    jobs.set(body.id, performance.now());   // a service that chooses another id says so
    return body;
  } catch (error) {
    if (error.isThere) return { id };   // the answer was lost, and so it was sent again
    release(id);
    if (error.noJobs) return null;
    throw error;
  }
}

// Waits until a job is done, and says how far it is.
async function over(job, file, work) {
  const look = () => insist(() => fetch(`jobs/${job.id}?wait=${LOOK_S}`, { signal: work.signal }), "json", file, work).then((answer) => answer.body);
  for (let report = job.state ? job : await look(); report.state !== "done"; report = await look()) {
    if (report.state === "failed") throw refused(report.problem, report.problem.status);
    work.note = standing(report);
  }
  work.note = "";
}

function standing(report) {
  const rest = report.seconds_left === null ? "" : `, about ${duration(report.seconds_left)} left`;
  if (report.state === "queued") return `, ${place(report.jobs_before)}${rest}`;
  if (report.pixels_done >= report.pixels) return ` · ${report.output === "labels" ? "finding objects" : "writing the result"}${rest}`;
  return ` · ${Math.floor(100 * report.pixels_done / report.pixels)} %${rest}`;
}

function place(before) {   // null where the replica that answers does not know
  if (!before) return before === 0 ? "next in the queue" : "in the queue";
  return before === 1 ? "1 job before yours" : `${before} jobs before yours`;
}

// What the service expects to need for the image; null where its size is not known before it is decoded.
async function forecast(file, signal) {
  const size = $("axes").value ? null : await measured(file).catch(() => null);   // which the axes may change
  if (!size) return null;
  const given = { size: `${size.height}x${size.width}`, planes: size.planes, format: "rle" };
  const answer = await fetch(query("plan", given, ["model", "channel", "scale"]), { signal }).catch(() => null);
  const plan = await answer?.json().catch(() => null), refusal = answer?.status === 413 ? plan : plan?.refusal;
  // only the service knows for sure how the pages of a file make planes, and what its bits take
  if (refusal?.type.endsWith("/image-too-large") && size.planes === 1) throw refused(refusal, 413);
  return answer?.ok ? { ...plan, isLong: plan.expected_seconds > LONGEST_REQUEST_S || (refusal?.type.endsWith("/deadline-exceeded") ?? false) } : null;
}
