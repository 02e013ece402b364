"use strict";
// An open training report: how old it is, what is new, and the sample images over time.
// Its data, also in live.js: {state, written (ms), patience (s), samples: [[stage, epoch, step, {label: file}, size], ...]},
// in live.js with parts: {id: HTML}, in the page with refresh (s), columns and live, the name of live.js.
(function () {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const RUNNING = "running", one = (selector) => document.querySelector(selector);
  let timeline = null; // there is none before the first sample images

  function words(seconds) {
    if (seconds < 90) return `${Math.round(seconds)} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
  }

  function age() {
    const seconds = Math.max(0, (Date.now() - data.written) / 1000), alert = one("p.alert");
    one(".age").textContent = `, ${words(seconds)} ago`;
    alert.hidden = data.state !== RUNNING || seconds < data.patience;
    if (!alert.hidden) {
      const text = `No news for ${words(seconds)}: the training may have been killed, or hangs. See whether its process runs, and the end of log.txt; --continue_train resumes it.`;
      if (alert.textContent !== text) alert.textContent = text;
    }
  }

  // What is new, without a reload: the page neither flickers nor jumps, and what was opened stays open.
  const drawn = {};
  function apply(news) {
    const waited = news.written !== data.written;
    Object.assign(data, news);
    for (const [id, html] of Object.entries(news.parts)) {
      const part = document.getElementById(id);
      if (!part || drawn[id] === html || !waited) continue;
      const known = new Map([...part.querySelectorAll("details[id]")].map((d) => [d.id, d.open]));
      const focused = part.contains(document.activeElement) && document.activeElement.closest("[id]").id, top = window.scrollY;
      part.outerHTML = html;
      drawn[id] = html;
      for (const [name, open] of known) { const again = document.getElementById(name); if (again) again.open = open; }
      const summary = focused && one(`#${CSS.escape(focused)} > summary`);
      if (summary) summary.focus({ preventScroll: true });
      if (window.scrollY !== top) window.scrollTo(0, top);
    }
    if (waited && timeline) timeline.news();
    else if (waited && data.samples.length) { keep(); location.reload(); } // the first samples
    age();
  }

  window.ptaLive = function (news) { document.currentScript.ptaNews = news; };
  let asking = false;
  function ask() {
    if (data.state !== RUNNING || asking) return;
    const tag = document.createElement("script");
    const done = () => { asking = false; tag.remove(); if (tag.ptaNews) apply(tag.ptaNews); };
    asking = true;
    tag.onload = tag.onerror = done; // a file that is just being replaced is read the next time
    tag.src = `${data.live}?${Date.now()}`;
    document.head.append(tag);
  }

  // Where the reader was, if the page is loaded again.
  const place = `pta:${location.pathname}`;
  function keep() {
    try { sessionStorage.setItem(place, JSON.stringify({ stage: timeline && timeline.stage, step: timeline && timeline.moved ? timeline.step : null })); } catch { /* not allowed: the newest are shown */ }
  }
  function kept() { try { return JSON.parse(sessionStorage.getItem(place)) || {}; } catch { return {}; } }

  class Timeline {
    constructor(root) {
      this.root = root;
      this.find = (name) => root.querySelector("." + name);
      const before = kept();
      this.moved = false; // whether the reader has moved the slider; if not, the newest are shown
      this.choose(this.stages().includes(before.stage) && before.step !== null ? before.stage : this.stages().pop());
      if (before.step !== null && before.step !== undefined && this.stage === before.stage) this.go(this.nearest(before.step));
      this.find("time").addEventListener("input", (e) => this.go(Number(e.target.value)));
      this.find("earlier").addEventListener("click", () => this.go(this.at - 1));
      this.find("later").addEventListener("click", () => this.go(this.at + 1));
      this.find("newest").addEventListener("click", () => { this.moved = false; this.choose(this.stages().pop()); keep(); });
      this.find("stage-choice").addEventListener("change", (e) => { this.moved = e.target.value !== this.stages().pop(); this.choose(e.target.value); keep(); });
      document.addEventListener("keydown", (e) => this.key(e));
    }
    stages() { return [...new Set(data.samples.map((sample) => sample[0]))]; }
    nearest(step) { return this.list.reduce((best, sample, i) => Math.abs(sample[2] - step) < Math.abs(this.list[best][2] - step) ? i : best, 0); }

    key(e) {
      const at = e.target, box = this.root.getBoundingClientRect();
      if (e.ctrlKey || e.altKey || e.metaKey || (at.matches && at.matches("input, select, textarea"))) return;
      if (box.bottom < 60 || box.top > window.innerHeight - 60) return;
      const goal = { ArrowLeft: this.at - 1, ArrowRight: this.at + 1, Home: 0, End: this.list.length - 1 }[e.key];
      if (goal === undefined) return;
      e.preventDefault();
      this.go(goal);
    }

    choose(stage) {
      this.stage = stage;
      this.list = data.samples.filter((sample) => sample[0] === stage);
      this.show(this.list.length - 1);
    }

    go(at) {
      this.show(at);
      this.moved = this.at < this.list.length - 1 || this.stage !== this.stages().pop();
      keep();
    }

    news() { // the same samples as before, or the newest
      const step = this.step, stages = this.stages(), choice = this.find("stage-choice");
      if (choice.options.length !== stages.length) choice.replaceChildren(...stages.map((stage) => new Option(stage, stage)));
      if (!this.moved || !stages.includes(this.stage)) { this.moved = false; this.choose(stages[stages.length - 1]); return; }
      this.list = data.samples.filter((sample) => sample[0] === this.stage);
      this.show(this.nearest(step));
    }

    show(at) {
      if (!this.list || !this.list.length) return;
      this.at = Math.min(Math.max(0, at), this.list.length - 1);
      const [stage, epoch, step, files, size] = this.list[this.at], slider = this.find("time");
      this.step = step;
      slider.max = this.list.length - 1;
      slider.value = this.at;
      this.find("stage-choice").value = stage;
      const number = step.toLocaleString("en"), last = this.at === this.list.length - 1;
      const text = `Stage ${stage}, epoch ${epoch}, step ${number}; ${this.at + 1} of ${this.list.length}${last ? ", the newest of this stage" : ""}`;
      this.find("where").textContent = text;
      slider.setAttribute("aria-valuetext", text);
      this.pictures(stage, number, files, size);
      this.root.dataset.shown = `${stage}/${step}`;
    }

    pictures(stage, number, files, size) {
      const host = this.find("samples"), labels = Object.keys(files);
      if ([...host.querySelectorAll("figcaption")].map((caption) => caption.textContent).join("\n") !== labels.join("\n")) this.layout(host, labels);
      host.querySelectorAll("figure").forEach((figure, i) => {
        const image = figure.querySelector("img"), address = files[labels[i]].split("/").map(encodeURIComponent).join("/");
        if (size.length) [image.width, image.height] = size; // room for it until it is loaded
        if (image.getAttribute("src") !== address) image.src = address;
        image.alt = `${labels[i]}, stage ${stage}, step ${number}`;
        figure.querySelector("a").href = address;
      });
    }

    layout(host, labels) {
      host.replaceChildren();
      for (let start = 0; start < labels.length; start += data.columns) {
        const some = labels.slice(start, start + data.columns), band = document.createElement("div");
        band.className = "band";
        band.style.cssText = `grid-template-columns: repeat(${some.length}, 1fr); flex: 1 1 ${116 * some.length}px; max-width: ${160 * some.length}px`;
        for (const label of some) {
          const figure = document.createElement("figure"), caption = document.createElement("figcaption"), anchor = document.createElement("a"), image = document.createElement("img");
          caption.textContent = label;
          image.loading = "lazy";
          anchor.append(image);
          figure.append(caption, anchor);
          band.append(figure);
        }
        host.append(band);
      }
    }
  }

  const root = document.getElementById("samples");
  if (root) timeline = new Timeline(root);
  age();
  setInterval(age, 5000);
  setInterval(ask, 1000 * data.refresh);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  document.documentElement.dataset.ready = "true";
})();
