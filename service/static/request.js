"use strict";
// What the page asks of the service.

const OPTIONS = ["model", "channel", "axes", "threshold", "min_area", "min_score", "link", "scale"];

function query(path, given, names) {
  given.output = $("output").value;
  $("link").disabled = given.output !== "labels";   // which alone have numbers
  for (const name of names) {
    const field = $(name);
    if (field.disabled) continue;
    if (field.validity.badInput) throw new Error(`${field.labels[0].firstChild.textContent.trim()} is no number; left empty it is ${field.placeholder}.`);
    if (field.value) given[name] = field.value;
  }
  if ($("mirror").checked) given.mirror = "true";
  if ($("fit").checked) given.scale = "auto";   // in place of a number
  return `${path}?` + new URLSearchParams(given);
}

// Headers and body of an answer, which is read as "json" or "blob". Asked again where it breaks off: an image has one answer.
async function ask(file, address, read, signal) {
  for (let again = false; ; again = true) {
    const answer = await fetch(address, { method: "POST", body: file, signal }).catch((error) => {
      throw error.name === "AbortError" ? error : new Error("The service does not answer, or the file cannot be read any more.");
    });
    if (!answer.ok) {
      const problem = await answer.json().catch(() => ({}));
      const unknownModel = problem.type?.endsWith("/unknown-model");
      throw Object.assign(new Error(problem.detail || problem.title || `The service answers ${answer.status}.`), { unknownModel });
    }
    try {
      return { headers: answer.headers, body: await answer[read]() };
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (again) throw new Error("The answer broke off twice; try it again.");
    }
  }
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
  return answer?.ok ? plan : null;
}
