"use strict";
// What a refusal means here: it comes in the words of those who write requests, which a person at this page does not.

const MORE = "ask whoever runs the service to allow more";
const REMEDIES = {   // by type, in place of what follows the number and the limit
  "axes-mismatch": () => "write a letter for each of these into the field Axes, in the order of the file, or leave it empty",
  "body-too-large": () => `compress the image (TIFF with Deflate or ZSTD), crop it, or ${MORE}`,
  "deadline-exceeded": () => `choose a smaller part of the image, or ${MORE} (UNET_DEADLINE_S, UNET_JOB_DEADLINE_S)`,
  "image-mismatch": (detail) => {
    const choices = /channel=(.*), or send an image/.exec(detail)?.[1];
    return choices ? `choose one in the field Channel: ${choices}` : "choose another image, or another model";
  },
  "result-too-large": () => `choose another entry of the field Download as, crop the image, or ${MORE} (UNET_JOBS_MB)`,
  "unsupported-output": () => "choose another entry of the field Download as, such as TIFF",
};

// The error that an answer is; `again` where the same question may have a better answer later.
function refused(problem, status) {
  const kind = problem.type?.split("/").at(-1), remedy = REMEDIES[kind], detail = problem.detail;
  const words = detail && remedy ? `${detail.split("; ")[0]}; ${remedy(detail)}` : detail?.replace("with axes=", "in the field Axes");
  return Object.assign(new Error(words || problem.title || `The service answers ${status}.`), {
    again: status >= 500, unknownModel: kind === "unknown-model", tooLong: status === 504, lost: ["job-lost", "unknown-job"].includes(kind),
    isThere: kind === "job-exists", noJobs: kind === "jobs-off", wait: problem.retry_after_s,
  });
}
