"use strict";
// The slice browser of a report. Every viewer is a section.viewer whose data-config names an element with its data:
// {subjects: [{name, person, files: [script, ...]}], panels: [{label, file, kind}], error_range}.
// Where several files have a synthesis, each is a run, named by that panel's label, and scores are shown of every run.
// A panel shows sheet `kind` of the subject's file number `file`; the kind "error" is computed from fake_B and truth.
(function () {
  const KEPT = 3; // subjects whose pictures stay in memory

  window.ptaSlices = function (content) { document.currentScript.ptaContent = content; };

  function load(address) {
    return new Promise(function (resolve, reject) {
      const tag = document.createElement("script");
      tag.src = address;
      tag.onload = () => { tag.remove(); tag.ptaContent ? resolve(tag.ptaContent) : reject(new Error(address)); };
      tag.onerror = () => { tag.remove(); reject(new Error(address)); };
      document.head.append(tag);
    });
  }

  // A sheet's grey values, slice after slice. Slices are read one by one: phones refuse large canvases.
  async function pixels(content, kind) {
    const picture = new Image();
    picture.src = content.sheets[kind];
    await picture.decode();
    const { width, height, across, index } = content, size = width * height;
    const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d", { willReadFrequently: true });
    const values = new Uint8Array(index.length * size);
    for (let s = 0; s < index.length; s++) {
      context.drawImage(picture, -(s % across) * width, -Math.floor(s / across) * height);
      const found = context.getImageData(0, 0, width, height).data;
      for (let i = 0; i < size; i++) values[s * size + i] = found[4 * i];
    }
    return values;
  }

  function errors(fake, truth) { // 255 + fake - truth: no error is 255
    const found = new Uint16Array(fake.length);
    for (let i = 0; i < fake.length; i++) found[i] = 255 + fake[i] - truth[i];
    return found;
  }

  // 256 or 511 colours as 32-bit words in the byte order of an image: alpha, blue, green, red.
  const word = (r, g, b) => (255 << 24) | (Math.round(b) << 16) | (Math.round(g) << 8) | Math.round(r);
  function greys(low, high) {
    const span = Math.max(1, high - low);
    return Uint32Array.from({ length: 256 }, (_, v) => { const g = 255 * Math.min(1, Math.max(0, (v - low) / span)); return word(g, g, g); });
  }
  function errorColours(range) { // as evaluation/pictures.py: red is too bright, blue too dark
    return Uint32Array.from({ length: 511 }, function (_, v) {
      const signed = Math.min(1, Math.max(-1, (v - 255) / 255 / range)), size = Math.abs(signed);
      const level = 255 * Math.min(1, 2 * size), excess = 255 * 0.85 * Math.min(1, Math.max(0, 2 * size - 1));
      return signed > 0 ? word(level, excess, 0) : word(0, excess, level);
    });
  }

  class Subject {
    constructor(files) { this.files = files; this.sheets = new Map(); }
    get main() { return this.files[0]; }
    has(panel) {
      const file = this.files[panel.file];
      return !!file && (panel.kind === "error" ? !!file.sheets.truth : !!file.sheets[panel.kind]);
    }
    async values(panel) {
      const key = panel.file + "/" + panel.kind;
      if (!this.sheets.has(key)) {
        const file = this.files[panel.file];
        const found = panel.kind === "error"
          ? Promise.all([this.values({ ...panel, kind: "fake_B" }), this.values({ ...panel, kind: "truth" })]).then((both) => errors(...both))
          : pixels(file, panel.kind);
        this.sheets.set(key, found);
      }
      return this.sheets.get(key);
    }
  }

  class Viewer {
    constructor(root) {
      this.root = root;
      this.config = JSON.parse(document.getElementById(root.dataset.config).textContent);
      this.find = (name) => root.querySelector("." + name);
      this.subjects = new Map();
      this.number = 0; this.slice = 0; this.x = this.y = 0; this.mode = "side"; this.second = false; this.asked = 0;
      this.colours = { error: errorColours(this.config.error_range) };
      for (const [kind, rows] of Object.entries(this.config.colours || {})) this.colours[kind] = Uint32Array.from(rows, (row) => word(...row));
      this.window();
      this.listen();
      this.open(0, null);
    }

    listen() {
      const on = (name, event, act) => { const found = this.find(name); if (found) found.addEventListener(event, act); };
      on("subject", "change", (e) => this.open(Number(e.target.value), null));
      on("slice", "input", (e) => this.go(Number(e.target.value)));
      for (const name of ["level", "width"]) on(name, "input", () => { this.window(); this.draw(); });
      on("reset", "click", () => { this.find("level").value = 50; this.find("width").value = 100; this.window(); this.draw(); });
      on("divider", "input", () => this.divide());
      on("blink", "change", (e) => this.blink(e.target.checked));
      for (const name of ["first", "other"]) on(name, "change", () => this.layout());
      this.root.querySelectorAll("[data-mode]").forEach((button) => button.addEventListener("click", () => this.setMode(button.dataset.mode)));
      on("three", "toggle", () => this.draw());
      document.querySelectorAll(`[data-viewer="${this.root.id}"]`).forEach((button) => button.addEventListener("click", () => {
        this.open(Number(button.dataset.subject), Number(button.dataset.slice));
        this.root.scrollIntoView({ block: "start" });
      }));
      this.root.querySelectorAll("[data-trust]").forEach((button) => button.addEventListener("click", () => this.goTrust(button.dataset.trust)));
      document.addEventListener("keydown", (e) => this.key(e));
    }

    // Slices of all subjects by slice_trust: the least trusted one, or a step from the last one shown in this order.
    goTrust(step) {
      const order = this.config.least_trusted;
      this.rank = step === "first" || this.rank === undefined ? 0 : Math.min(order.length - 1, Math.max(0, this.rank + Number(step)));
      const [number, slice] = order[this.rank];
      this.find("trust-place").textContent = `${this.rank + 1} of ${order.length}, the least trusted is 1`;
      if (number === this.number && this.subject) this.go(slice); else this.open(number, slice);
    }

    key(e) {
      const at = e.target, typed = at.matches && at.matches("select, textarea, input:not([type=range]):not([type=checkbox])");
      if (typed || e.ctrlKey || e.altKey || e.metaKey || !this.subject) return;
      if (at.matches && at.matches("input[type=range]:not(.slice)") && /^(Arrow|Home|End|Page)/.test(e.key)) return;
      const last = this.subject.main.index.length - 1, inside = this.root.contains(at) || this.visible();
      if (!inside) return;
      const steps = { ArrowRight: 1, ArrowLeft: -1, PageUp: 5, PageDown: -5 };
      if (inside && this.root.contains(at)) Object.assign(steps, { ArrowUp: 1, ArrowDown: -1 });
      if (e.key in steps) this.go(this.slice + steps[e.key]);
      else if (e.key === "Home") this.go(0);
      else if (e.key === "End") this.go(last);
      else if (e.key === "n") this.open(this.number + 1, null);
      else if (e.key === "p") this.open(this.number - 1, null);
      else if (e.key === "s") this.setMode(this.mode === "swipe" ? "side" : "swipe");
      else if (e.key === "f") { if (this.mode !== "flicker") this.setMode("flicker"); else this.swap(); }
      else if (e.key === "Escape") this.setMode("side");
      else return;
      e.preventDefault();
    }

    visible() { const box = this.root.getBoundingClientRect(); return box.bottom > 60 && box.top < window.innerHeight - 60; }

    async open(number, slice) {
      if (number < 0 || number >= this.config.subjects.length) return;
      const asked = ++this.asked, entry = this.config.subjects[number];
      this.number = number;
      if (this.find("subject")) this.find("subject").value = number;
      try {
        if (!this.subjects.has(number)) {
          const files = await Promise.all(entry.files.map((file) => file && load(file)));
          this.subjects.set(number, new Subject(files));
          while (this.subjects.size > KEPT) this.subjects.delete(this.subjects.keys().next().value);
        }
        if (asked !== this.asked) return; // another subject was asked for meanwhile
        this.subject = this.subjects.get(number);
        const { index, width, height } = this.subject.main;
        this.find("slice").max = index.length - 1;
        this.slice = slice === null ? Math.floor(index.length / 2) : slice;
        this.x = width >> 1; this.y = height >> 1;
        this.layout();
      } catch (error) {
        this.find("where").textContent = "cannot read " + error.message + ": the folder browser/ must lie beside this page";
      }
    }

    go(slice) {
      if (!this.subject) return;
      this.slice = Math.min(Math.max(0, slice), this.subject.main.index.length - 1);
      this.draw();
    }

    setMode(mode) {
      this.mode = mode; this.second = false;
      this.root.querySelectorAll("[data-mode]").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.mode === mode)));
      this.root.querySelectorAll("[data-only]").forEach((part) => { part.hidden = !part.dataset.only.split(" ").includes(mode); });
      if (mode !== "flicker" && this.find("blink")) { this.find("blink").checked = false; this.blink(false); }
      this.layout();
    }

    swap() { this.second = !this.second; this.draw(); }
    blink(on) { clearInterval(this.timer); if (on) this.timer = setInterval(() => this.swap(), 600); }

    window() {
      const level = 2.55 * Number(this.find("level").value), width = 2.55 * Number(this.find("width").value);
      this.grey = greys(level - width / 2, level + width / 2);
      this.find("window-text").textContent = `${((level - width / 2) / 255).toFixed(2)} to ${((level + width / 2) / 255).toFixed(2)}`;
    }

    panel(name) { return this.config.panels[Number(this.find(name).value)]; }

    // The pictures' elements: anew for another subject, mode or pair, not for another slice.
    layout() {
      if (!this.subject) return;
      const stage = this.find("stage"), { sides } = this.subject.main;
      const shown = this.config.panels.filter((panel) => this.subject.has(panel));
      const groups = this.mode === "side" ? shown.map((panel) => [panel]) : [[this.panel("first"), this.panel("other")].filter((panel) => this.subject.has(panel))];
      stage.classList.toggle("one", this.mode !== "side");
      stage.style.gridTemplateColumns = this.mode === "side" ? `repeat(auto-fit, minmax(min(${groups.length > 4 ? 150 : 190}px, 45%), 1fr))` : "1fr";
      this.pictures = groups.map((panels) => this.picture(panels, sides));
      stage.replaceChildren(...this.pictures.map((picture) => picture.figure));
      this.planes();
      this.chart();
      this.divide();
      this.draw();
    }

    picture(panels, sides, width, height, ratio) {
      const main = this.subject.main, [sx, sy] = main.spacing || [1, 1];
      const figure = document.createElement("figure"), box = document.createElement("div"), caption = document.createElement("figcaption");
      const w = width || main.width, h = height || main.height;
      box.className = "picture";
      box.style.aspectRatio = String(ratio || (w * sx) / (h * sy));
      const canvases = panels.map(() => { const c = document.createElement("canvas"); c.width = w; c.height = h; c.setAttribute("role", "img"); return c; });
      box.append(...canvases);
      ["left", "right", "top", "bottom"].forEach((where, i) => { if (sides[i]) { const mark = document.createElement("i"); mark.className = where; mark.textContent = sides[i]; box.append(mark); } });
      figure.append(box, caption);
      const picture = { figure, box, canvases, panels, caption };
      if (!width) box.addEventListener("pointerdown", (e) => this.drag(e, picture));
      return picture;
    }

    drag(e, picture) {
      const move = (at) => {
        const box = picture.box.getBoundingClientRect(), x = Math.min(1, Math.max(0, (at.clientX - box.left) / box.width)), y = Math.min(1, Math.max(0, (at.clientY - box.top) / box.height));
        if (this.mode === "swipe") { this.find("divider").value = 100 * x; this.divide(); }
        else { const main = this.subject.main; this.x = Math.min(main.width - 1, Math.floor(x * main.width)); this.y = Math.min(main.height - 1, Math.floor(y * main.height)); this.draw(); }
      };
      if (this.mode === "flicker") { this.swap(); return; }
      move(e);
      const stop = () => { window.removeEventListener("pointermove", move); window.removeEventListener("pointerup", stop); };
      window.addEventListener("pointermove", move);
      window.addEventListener("pointerup", stop);
    }

    divide() {
      const picture = this.pictures && this.pictures[0];
      if (!picture || picture.canvases.length < 2) return;
      const at = Number(this.find("divider").value), [, upper] = picture.canvases;
      upper.style.clipPath = this.mode === "swipe" ? `inset(0 0 0 ${at}%)` : "";
      let line = picture.box.querySelector(".divider-line");
      if (this.mode === "swipe") {
        if (!line) { line = document.createElement("div"); line.className = "line v divider-line"; picture.box.append(line); }
        line.style.left = at + "%";
      }
    }

    async draw() {
      if (!this.subject || !this.pictures) return;
      const subject = this.subject, main = subject.main, s = this.slice, size = main.width * main.height;
      this.find("slice").value = s;
      const name = this.name();
      this.find("slice").setAttribute("aria-valuetext", name);
      this.describe(name);
      this.mark();
      for (const picture of this.pictures) {
        for (let i = 0; i < picture.panels.length; i++) {
          const panel = picture.panels[i], values = await subject.values(panel);
          if (subject !== this.subject || s !== this.slice) return; // the user is further on
          this.paint(picture.canvases[i], values.subarray(s * size, (s + 1) * size), panel.kind);
          picture.canvases[i].setAttribute("aria-label", `${panel.label}, ${name}`);
          picture.canvases[i].hidden = this.mode === "flicker" && i !== Number(this.second);
          picture.canvases[i].style.display = picture.canvases[i].hidden ? "none" : "";
        }
        const labels = picture.panels.map((panel) => panel.label);
        picture.caption.textContent = this.mode === "flicker" ? labels[Number(this.second)] : labels.join(" | ");
      }
      await this.drawPlanes();
      this.root.dataset.drawn = `${this.number}/${s}`;
    }

    paint(canvas, values, kind) {
      const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
      const words = new Uint32Array(image.data.buffer), colours = this.colours[kind] || this.grey;
      for (let i = 0; i < words.length; i++) words[i] = colours[values[i]];
      context.putImageData(image, 0, 0);
    }

    name() {
      const { main } = this.subject, entry = this.config.subjects[this.number];
      const person = entry.person && entry.person !== entry.name ? `, person ${entry.person}` : "";
      return `subject ${entry.name}${person}, slice ${this.slice + 1} of ${main.index.length} (number ${main.index[this.slice]} of the volume)`;
    }

    describe(name) {
      const main = this.subject.main, runs = this.runs(), files = runs.length ? this.subject.files : [main];
      const side = main.sides.length ? `${main.plane}; the picture's left is ${main.sides[0]}` : "left and right unknown: the data do not say";
      const numbers = files.map((file, i) => {
        const scores = Object.entries(file.scores).map(([key, values]) => [key, values[this.slice]]).filter(([, value]) => value !== null && value !== undefined);
        return (runs.length && scores.length ? runs[i] + ": " : "") + scores.map(([key, value]) => `${key} ${Number(value.toPrecision(4))}`).join(", ");
      }).filter((text) => text).join("; ");
      this.find("where").textContent = `${name}; ${main.stems[this.slice]}. ${numbers ? numbers + ". " : ""}Orientation: ${side}.`;
    }

    runs() { const ours = this.config.panels.filter((panel) => panel.kind === "fake_B"); return ours.length > 1 ? ours.map((panel) => panel.label) : []; }

    // A measure over the slices of the volume, with a mark at the present one.
    chart() {
      const host = this.find("chart"), main = this.subject.main, wide = 360, high = 110, left = 64;
      if (!host) return;
      const several = this.runs().length > 0, files = several ? this.subject.files : [main];
      const measures = Object.keys(main.scores).map((name) => [name, files.map((file) => file.scores[name] || [])]).filter(([, all]) => all.some((values) => values.some((v) => v !== null)));
      const svg = (tag, attributes) => { const e = document.createElementNS("http://www.w3.org/2000/svg", tag); for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v); return e; };
      this.marks = [];
      host.replaceChildren(...measures.map(([name, all]) => {
        const values = all[0], known = all.flat().filter((v) => v !== null), low = Math.min(...known), high_ = Math.max(...known), span = high_ - low || 1;
        const px = (i) => left + (wide - left - 8) * (values.length < 2 ? 0.5 : i / (values.length - 1)), py = (v) => high - 22 - (high - 50) * (v - low) / span;
        const root = svg("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": `${name} over the slices, from ${low.toPrecision(3)} to ${high_.toPrecision(3)}` });
        const text = (x, y, content, anchor, kind) => { const t = svg("text", { x, y, "text-anchor": anchor, class: kind || "" }); t.textContent = content; root.append(t); };
        text(0, 12, name, "start", "title"); text(left - 6, py(low) + 4, low.toPrecision(3), "end"); text(left - 6, py(high_) + 4, high_.toPrecision(3), "end"); text(left, high - 2, "first slice", "start"); text(wide - 8, high - 2, "last slice", "end");
        all.forEach((series, file) => {
          let path = "", pen = "M";
          const look = several ? { class: `c${file % 8}` } : {};
          series.forEach((v, i) => { if (v === null) { pen = "M"; return; } path += `${pen}${px(i).toFixed(1)} ${py(v).toFixed(1)}`; pen = "L"; root.append(svg("circle", { cx: px(i), cy: py(v), r: 1.8, ...look })); });
          root.append(svg("path", { d: path, ...look }));
        });
        const now = svg("line", { class: "now", y1: 18, y2: high - 16 });
        root.append(now);
        this.marks.push([now, px]);
        root.addEventListener("click", (e) => { const box = root.getBoundingClientRect(), x = (e.clientX - box.left) / box.width * wide; this.go(Math.round((x - left) / (wide - left - 8) * (values.length - 1))); });
        return root;
      }));
      this.mark();
    }

    mark() { for (const [line, px] of this.marks || []) { line.setAttribute("x1", px(this.slice)); line.setAttribute("x2", px(this.slice)); } }

    // The other two planes, from the same slices; the first slice is at the bottom.
    planes() {
      const host = this.find("planes");
      if (!host) return;
      const main = this.subject.main, [sx, sy, sz] = main.spacing || [1, 1, 1], low = main.index[0], n = main.index[main.index.length - 1] - low + 1, m = main.sides;
      this.cuts = { low, n, places: main.index.map((index) => index - low) };
      const vertical = m.length ? [m[2], m[3], m[5], m[4]] : [], horizontal = m.length ? [m[0], m[1], m[5], m[4]] : [];
      const panel = [this.planePanel()];
      this.across = this.picture(panel, horizontal, main.width, n, (main.width * sx) / (n * sz));
      this.along = this.picture(panel, vertical, main.height, n, (main.height * sy) / (n * sz));
      this.native = this.picture(panel, m);
      host.replaceChildren(this.native.figure, this.across.figure, this.along.figure);
      for (const picture of [this.native, this.across, this.along]) for (const kind of ["v", "h"]) { const line = document.createElement("div"); line.className = "line " + kind; picture.box.append(line); }
      for (const [picture, axis] of [[this.across, "x"], [this.along, "y"]]) picture.box.addEventListener("pointerdown", (e) => {
        const box = picture.box.getBoundingClientRect(), at = (e.clientX - box.left) / box.width, up = Math.round((1 - (e.clientY - box.top) / box.height) * n - 0.5);
        this[axis] = Math.min((axis === "x" ? main.width : main.height) - 1, Math.max(0, Math.floor(at * (axis === "x" ? main.width : main.height))));
        this.go(this.cuts.places.reduce((best, place, i) => Math.abs(place - up) < Math.abs(this.cuts.places[best] - up) ? i : best, 0));
      });
    }

    planePanel() { return this.config.panels[Number(this.find("plane-kind").value)]; }

    async drawPlanes() {
      const open = this.find("three");
      if (!open || !open.open || !this.cuts) return;
      const subject = this.subject, panel = this.planePanel();
      if (!subject.has(panel)) return;
      const values = await subject.values(panel), { width, height } = subject.main, size = width * height, { n, places } = this.cuts;
      if (subject !== this.subject) return;
      const empty = panel.kind === "error" ? 255 : 0, across = new Uint16Array(width * n).fill(empty), along = new Uint16Array(height * n).fill(empty);
      places.forEach((place, s) => {
        const row = n - 1 - place;
        for (let x = 0; x < width; x++) across[row * width + x] = values[s * size + this.y * width + x];
        for (let y = 0; y < height; y++) along[row * height + y] = values[s * size + y * width + this.x];
      });
      this.paint(this.native.canvases[0], values.subarray(this.slice * size, (this.slice + 1) * size), panel.kind);
      this.paint(this.across.canvases[0], across, panel.kind);
      this.paint(this.along.canvases[0], along, panel.kind);
      const fx = 100 * (this.x + 0.5) / width, fy = 100 * (this.y + 0.5) / height, fz = 100 * (n - 0.5 - places[this.slice]) / n;
      const put = (picture, v, h, label) => { picture.box.querySelector(".line.v").style.left = v + "%"; picture.box.querySelector(".line.h").style.top = h + "%"; picture.caption.textContent = label; picture.canvases[0].setAttribute("aria-label", `${panel.label}, ${label}`); };
      const names = { axial: ["axial", "coronal", "sagittal"], coronal: ["coronal", "axial", "sagittal"], sagittal: ["sagittal", "axial", "coronal"] }[subject.main.plane] || ["slice", "cut along the rows", "cut along the columns"];
      put(this.native, fx, fy, names[0]); put(this.across, fx, fz, `${names[1]}, row ${this.y}`); put(this.along, fy, fz, `${names[2]}, column ${this.x}`);
    }
  }

  document.querySelectorAll("section.viewer").forEach((root) => { root.viewer = new Viewer(root); });
})();
