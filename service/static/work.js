"use strict";
// A piece of work: the line that tells how it goes, the time that it takes, and the button that ends it.

const TICK_MS = 100;

function say(text, problem = false, line = $("status")) {
  line.textContent = text;
  line.classList.toggle("problem", problem);
}

function duration(seconds) {
  return seconds < 120 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`;
}

class Work {
  // elements: `line` for words, which are read aloud whenever they change, `clock` beside it, and the button `cancel`
  constructor(elements, words) {
    Object.assign(this, { elements, words, note: "", again: 0, controller: new AbortController(), started: performance.now() });
    this.signal = this.controller.signal;
    say(words, false, elements.line);
    elements.cancel.hidden = false;
    elements.cancel.onclick = () => this.cancel();
    this.timer = setInterval(() => {
      elements.clock.textContent = this.again ? `in ${Math.max(0, Math.ceil((this.again - performance.now()) / 1000))} s` : this.seconds(1) + this.note;
    }, TICK_MS);
  }

  seconds(digits) {
    return `${((performance.now() - this.started) / 1000).toFixed(digits)} s`;
  }

  async sleep(seconds) {
    await new Promise((resume) => {
      const timer = setTimeout(resume, 1000 * seconds);
      this.signal.addEventListener("abort", () => { clearTimeout(timer); resume(); }, { once: true });
    });
    this.signal.throwIfAborted();
  }

  // Waits, says why, and counts down; what was foreseen before does not hold any more.
  async pause(why, seconds) {
    say(`${why}; the page asks again`, false, this.elements.line);
    this.note = "";
    this.again = performance.now() + 1000 * seconds;
    await this.sleep(seconds);
    this.again = 0;
    say(this.words, false, this.elements.line);
  }

  cancel() {
    this.controller.abort();
    this.end();
  }

  end() {   // the line may belong to other work by then
    if (this.ended) return;
    clearInterval(this.timer);
    this.ended = true;
    this.elements.clock.textContent = "";
    this.elements.cancel.hidden = true;
  }
}
