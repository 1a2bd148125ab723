"use strict";
(function () {
  const root = document.documentElement, tip = document.getElementById("tip"), $ = id => document.getElementById(id);

  // light or dark, kept in a cookie so that the next page is drawn right at once
  $("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    document.cookie = "tunewell-theme=" + root.dataset.theme + "; path=/; max-age=31536000; samesite=strict";
  });

  // tips of marks in charts, by mouse and by keyboard
  function show(event) {
    const mark = event.target.closest ? event.target.closest("[data-tip]") : null;
    tip.style.display = mark ? "block" : "none";
    if (!mark) return;
    const box = mark.getBoundingClientRect();
    tip.textContent = mark.dataset.tip;
    tip.style.left = Math.max(8, Math.min(innerWidth - tip.offsetWidth - 8, box.left + box.width / 2 - tip.offsetWidth / 2)) + "px";
    tip.style.top = (box.top > 50 ? box.top - tip.offsetHeight - 8 : box.bottom + 8) + "px";
  }
  document.addEventListener("mouseover", show);
  document.addEventListener("focusin", show);
  addEventListener("scroll", () => { tip.style.display = "none"; }, { passive: true });

  // tables that sort by their headers
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.querySelectorAll("thead th")], body = table.tBodies[0];
    heads.forEach((head, column) => {
      const button = head.querySelector("button.sort");
      if (!button) return;
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending", value = row => row.cells[column].dataset.value || "";
        for (const other of heads) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...body.rows].sort((a, b) => {
          const x = value(a), y = value(b);
          if (x === "" || y === "") return (x === "") - (y === ""); // what is not known stays last
          const sign = up ? 1 : -1, numbers = !isNaN(x) && !isNaN(y);
          return sign * (numbers ? x - y : x.localeCompare(y, undefined, { numeric: true }));
        });
        body.append(...rows);
      });
    });
  }

  // a box that filters a table
  const filter = document.querySelector("[data-filter]");
  if (filter) {
    const rows = [...$(filter.dataset.filter).tBodies[0].rows], shown = $("shown");
    const apply = () => {
      const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      let n = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !wanted.every(word => text.includes(word));
        if (!row.hidden) n += 1;
      }
      shown.textContent = wanted.length ? shown.dataset.text.replace("{n}", n).replace("{all}", rows.length) : "";
    };
    filter.addEventListener("input", apply);
    filter.addEventListener("keydown", event => { if (event.key === "Enter") event.preventDefault(); });
    apply();
  }
})();

// parts of a page that keep themselves up to date; what has the focus keeps it
(function () {
  const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]";
  function replace(box, html) {
    const at = box.contains(document.activeElement) ? [...box.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement) : -1;
    const open = [...box.querySelectorAll("details")].map(d => d.open), logs = [...box.querySelectorAll("pre.log")].map(p => p.scrollTop + p.clientHeight >= p.scrollHeight - 4 ? -1 : p.scrollTop);
    box.innerHTML = html; // made by the app's own templates, which escape everything
    box.querySelectorAll("details").forEach((d, i) => { if (i < open.length) d.open = open[i]; });
    box.querySelectorAll("pre.log").forEach((p, i) => { p.scrollTop = i < logs.length && logs[i] >= 0 ? logs[i] : p.scrollHeight; });
    const next = at >= 0 ? box.querySelectorAll(FOCUSABLE)[at] : null;
    if (next) next.focus({ preventScroll: true });
  }
  for (const log of document.querySelectorAll("pre.log")) log.scrollTop = log.scrollHeight;
  for (const box of document.querySelectorAll("[data-poll]")) {
    let shown = null;
    const look = async () => {
      if (!document.hidden) {
        try {
          const answer = await fetch(box.dataset.poll);
          const html = await answer.text();
          if (answer.ok && html !== shown) { if (shown !== null || html.trim() !== box.innerHTML.trim()) replace(box, html); shown = html; }
        } catch (error) { /* the app is gone for a moment: look again */ }
      }
      if (!box.querySelector("[data-done]")) setTimeout(look, Number(box.dataset.every));
    };
    if (!box.querySelector("[data-done]")) setTimeout(look, Number(box.dataset.every));
  }

  // forms whose answer comes into the page
  for (const form of document.querySelectorAll("form[data-into]")) {
    const into = document.getElementById(form.dataset.into), buttons = [...form.querySelectorAll("button")];
    form.addEventListener("submit", async event => {
      event.preventDefault();
      const file = form.querySelector("input[type=file]");
      let to = form.dataset.to, body, headers = {};
      if (file) { // a file goes as it is, so that it can be bounded while it comes
        to = "/upload?name=" + encodeURIComponent(file.files[0].name);
        body = file.files[0];
        headers = { "Content-Type": "application/octet-stream" };
      } else {
        body = new URLSearchParams(new FormData(form));
        if (event.submitter && event.submitter.name) body.set(event.submitter.name, event.submitter.value);
      }
      into.textContent = form.dataset.busy;
      buttons.forEach(b => { b.disabled = true; });
      try {
        const answer = await fetch(to, { method: "POST", body, headers });
        if (answer.headers.get("x-go")) { location.href = answer.headers.get("x-go"); return; }
        const html = await answer.text();
        if (answer.headers.get("content-type").startsWith("text/html")) into.innerHTML = html; else into.textContent = html;
      } catch (error) { into.textContent = document.body.dataset.lost; } finally {
        buttons.forEach(b => { b.disabled = false; });
        if (event.submitter) event.submitter.focus();
      }
    });
    form.addEventListener("keydown", event => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(buttons[0]);
    });
  }
})();
