"use strict";
// What moves on the page: which components are drawn, which labels, and whose photo is pointed at or clicked.
{
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const data = read("data");
  const nPhotos = data.path.length, nComponents = data.units.length;
  const bytes = Uint8Array.from(atob(data.scores), (c) => c.charCodeAt(0));
  const stored = new Int16Array(bytes.buffer); // little-endian, as every browser's machine is
  const score = (photo, component) => stored[photo * nComponents + component] * data.units[component];
  const element = (kind, name, text) => {
    const made = document.createElement(kind);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const picture = (photo, size) => {
    const perSheet = data.columns * data.rows, at = photo % perSheet;
    const made = element("span", `photo sheet-${Math.floor(photo / perSheet)} ${size}`);
    made.style.setProperty("--x", at % data.columns);
    made.style.setProperty("--y", Math.floor(at / data.columns));
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", data.path[photo]);
    return made;
  };
  const labelOf = (photo) => data.labels[data.label[photo]];

  // The card at the pointer.
  const tip = document.getElementById("tip");
  let tipOf = null;
  const showTip = (name, where, ...parts) => {
    tip.replaceChildren(...parts);
    tip.hidden = false;
    tipOf = name;
    const chart = document.getElementById(`${name}-chart`).getBoundingClientRect();
    const x = chart.left + where.sx, y = chart.top + where.sy;
    const left = x + 16 + tip.offsetWidth < innerWidth ? x + 16 : Math.max(4, x - 16 - tip.offsetWidth);
    const top = y + 16 + tip.offsetHeight < innerHeight ? y + 16 : Math.max(4, y - 16 - tip.offsetHeight);
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${top + scrollY}px`;
  };
  const hideTip = (name) => { if (tipOf === name) { tip.hidden = true; tipOf = null; } };
  const tellPhoto = (told) => {
    const found = told.index.indices;
    if (!found.length) return hideTip("scatter");
    const photo = nearestTo(found, told.geometry);
    const more = found.length > 1 ? [element("p", "path", `and ${found.length - 1} more here`)] : [];
    const label = element("p"), path = element("p", "path");
    label.append(element("b", "", labelOf(photo)));
    path.append(element("bdi", "", data.path[photo]));
    showTip("scatter", told.geometry, picture(photo, "large"), label, path, ...more);
  };
  const tellCell = (name, numbers, words) => (told) => {
    const column = Math.round(told.geometry.x), row = Math.round(told.geometry.y);
    const value = numbers.values[row]?.[column];
    if (value === undefined) return hideTip(name);
    showTip(name, told.geometry, ...words(numbers.labels[row], numbers.labels[column], value).map(
      (text, i) => element("p", i ? "number" : "", text)));
  };
  const tellers = {
    scatter: tellPhoto,
    separation: tellCell("separation", data.separation, (a, b, value) =>
      [a === b ? a : `${a} – ${b}`, a === b ? "" : value === null ? "a single photo has no spread" : `${value} spreads apart`]),
    confusion: tellCell("confusion", data.confusion, (label, predicted, value) =>
      [label === predicted ? label : `${label}, taken for ${predicted}`, `${value} photos`]),
  };
  window.report = { tell: (told, name) => tellers[name](told) };
  document.addEventListener("pointerover", (event) => {
    if (tipOf && !document.getElementById(`${tipOf}-chart`).contains(event.target)) hideTip(tipOf);
  });

  // Text and lines of the charts, in the colours of the page.
  const roots = () => Bokeh.documents.flatMap((drawn) => drawn.roots());
  const paint = () => {
    const colors = getComputedStyle(document.documentElement);
    const [text, quiet, line] = ["--text", "--quiet", "--line"].map((name) => colors.getPropertyValue(name).trim());
    for (const plot of roots()) {
      for (const part of [...plot.left, ...plot.right, ...plot.above, ...plot.below, ...plot.center]) {
        const isAxis = "axis_label_text_color" in part.properties;
        if (isAxis) part.setv({
          axis_label_text_color: text, major_label_text_color: quiet, axis_line_color: quiet,
          major_tick_line_color: quiet, minor_tick_line_color: null,
        });
        else if ("grid_line_color" in part.properties) part.grid_line_color = line;
        else if ("label_text_color" in part.properties) part.setv({
          label_text_color: text, background_fill_alpha: 0, border_line_color: null,
        });
        else if ("title_text_color" in part.properties) part.setv({
          title_text_color: text, major_label_text_color: quiet, background_fill_color: null,
          major_tick_line_color: quiet,
        });
      }
    }
  };

  // The scatter plot.
  let plot, source, view, at = [0, Math.min(1, nComponents - 1)];
  const hidden = new Set();
  const nearestTo = (photos, where) => {
    const [x, y] = [source.data.x, source.data.y];
    const { x_range, y_range } = plot;
    const away = (photo) =>
      ((x[photo] - where.x) / (x_range.end - x_range.start)) ** 2 + ((y[photo] - where.y) / (y_range.end - y_range.start)) ** 2;
    return photos.reduce((best, photo) => (away(photo) < away(best) ? photo : best));
  };
  const axisName = (component) => `component ${component + 1} (${data.percent[component].toFixed(1)} % of the variance)`;
  const place = () => {
    const column = (component) => Float32Array.from({ length: nPhotos }, (_, photo) => score(photo, component));
    source.data = { ...source.data, x: column(at[0]), y: column(at[1]) };
    plot.below[0].axis_label = axisName(at[0]);
    plot.left[0].axis_label = axisName(at[1]);
    plot.reset?.emit?.();
  };
  const filter = () => {
    view.filter.booleans = data.label.map((label) => !hidden.has(label));
    for (const button of document.querySelectorAll("#marks button"))
      button.setAttribute("aria-pressed", String(!hidden.has(Number(button.dataset.number))));
  };
  const selectComponents = () => {
    for (const [i, id] of [[0, "across"], [1, "up"]]) {
      const select = document.getElementById(id);
      for (let component = 0; component < nComponents; component++)
        select.add(new Option(`component ${component + 1} (${data.percent[component].toFixed(1)} %)`, component));
      select.value = at[i];
      select.addEventListener("change", () => { at[i] = Number(select.value); place(); });
    }
  };
  const toggleLabels = () => {
    const numbers = [...document.querySelectorAll("#marks button")].map((button) => Number(button.dataset.number));
    const only = (shown) => { hidden.clear(); numbers.filter((n) => !shown.has(n)).forEach((n) => hidden.add(n)); filter(); };
    document.getElementById("marks").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const number = Number(button.dataset.number);
      if (event.detail === 2) return only(new Set([number]));
      hidden.has(number) ? hidden.delete(number) : hidden.add(number);
      filter();
    });
    document.getElementById("all").addEventListener("click", () => only(new Set(numbers)));
    document.getElementById("none").addEventListener("click", () => only(new Set()));
    document.getElementById("find")?.addEventListener("input", (event) => {
      const wanted = event.target.value.toLocaleLowerCase();
      for (const item of document.querySelectorAll("#marks li"))
        item.hidden = !item.textContent.toLocaleLowerCase().includes(wanted);
    });
  };
  const neighboursOf = (photo) => {
    const distances = Array.from({ length: nPhotos }, (_, other) => {
      let sum = 0;
      for (let c = 0; c < nComponents; c++) sum += (score(photo, c) - score(other, c)) ** 2;
      return [Math.sqrt(sum), other];
    });
    return distances.filter(([, other]) => other !== photo).sort((a, b) => a[0] - b[0]).slice(0, 10);
  };
  const listNeighbours = (photo) => {
    const chosen = element("div", "chosen"), text = element("div");
    text.append(element("b", "", labelOf(photo)), element("div", "path", data.path[photo]));
    chosen.append(picture(photo, "large"), text);
    const table = element("table"), head = table.insertRow();
    table.createCaption().textContent = `Nearest neighbours, by ${nComponents} components`;
    for (const [name, kind] of [["", ""], ["label", ""], ["path", ""], ["distance", "number"]]) {
      const cell = element("th", kind, name);
      cell.scope = "col";
      head.append(cell);
    }
    for (const [distance, other] of neighboursOf(photo)) {
      const row = table.insertRow();
      row.insertCell().append(picture(other, "small"));
      row.insertCell().append(element(data.label[other] === data.label[photo] ? "bdi" : "b", "", labelOf(other)));
      row.insertCell().append(element("bdi", "path", data.path[other]));
      const cell = row.insertCell();
      cell.className = "number";
      cell.textContent = distance.toPrecision(3);
    }
    document.getElementById("neighbours").replaceChildren(chosen, table);
  };
  const chosenOf = (indices) => {
    if (indices.length) listNeighbours(indices.length > 1 && lastTap ? nearestTo(indices, lastTap) : indices[0]);
    else document.getElementById("neighbours").replaceChildren();
  };
  let lastTap = null;
  const PAPER_PX = 640; // of A4 between margins, at 96 to the inch

  const start = async () => {
    const charts = read("charts");
    for (const [place, chart] of Object.entries(charts))
      if (document.getElementById(place)) await Bokeh.embed.embed_item(chart, place);
    plot = roots().find((root) => root.name === "scatter");
    source = plot.renderers[0].data_source;
    view = plot.renderers[0].view;
    plot.on_event("tap", (event) => { lastTap = event; });
    source.selected.properties.indices.change.connect(() => setTimeout(() => chosenOf(source.selected.indices)));
    paint();
    selectComponents();
    toggleLabels();
    place();
    // On a phone a matrix is about as high as it is wide.
    for (const square of document.querySelectorAll(".chart.square"))
      for (const drawn of roots())
        if (`${drawn.name}-chart` === square.id) drawn.height = Math.min(640, Math.max(400, square.clientWidth + 60));
    // On a touch screen a finger on a chart scrolls the page; two fingers zoom.
    if (matchMedia("(pointer: coarse)").matches) for (const drawn of roots()) drawn.toolbar.active_drag = null;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
    const root = document.documentElement;
    addEventListener("beforeprint", () => {
      root.classList.add("print");
      document.querySelectorAll("details").forEach((details) => { details.open = true; });
      // At once: what is drawn later is not on the paper. Nor are charts made narrower in time, but scaled.
      for (const chart of document.querySelectorAll(".chart"))
        chart.style.setProperty("--fit", Math.min(1, PAPER_PX / chart.clientWidth));
      paint();
      for (const view of Bokeh.index) view.repaint?.();
    });
    addEventListener("afterprint", () => { root.classList.remove("print"); paint(); });
    root.dataset.ready = "true";
  };
  start();
}
