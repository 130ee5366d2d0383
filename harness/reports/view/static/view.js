"use strict";

// Pages work without this file; it filters as one types and keeps what is going up to date.

const form = document.getElementById("runs");

function filter() {
  const words = form.elements.q.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...form.querySelectorAll("tr.run")];
  for (const row of rows) {
    const text = `${row.textContent} ${row.id}`.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
  for (const body of form.querySelectorAll("tbody")) {
    body.hidden = !body.querySelector("tr.run:not([hidden])");
  }
  const shown = rows.filter((row) => !row.hidden).length;
  document.getElementById("shown").textContent = shown.toLocaleString("en");
  document.getElementById("nothing").hidden = shown > 0 || rows.length === 0;
}

if (form) {
  const count = () => {
    const ticked = form.querySelectorAll("input[name=run]:checked").length;
    document.getElementById("ticked").textContent = ticked ? `, ${ticked} ticked` : "";
    form.querySelector("[formaction='/report']").disabled = ticked < 1;
    form.querySelector("[formaction='/compare']").disabled = ticked < 2;
  };
  form.elements.q.addEventListener("input", filter);
  form.addEventListener("change", (event) => {
    if (event.target.matches("select")) form.requestSubmit();
    count();
  });
  // What the list is filtered by has no place in the address of a report.
  form.addEventListener("submit", (event) => {
    const elsewhere = event.submitter?.hasAttribute("formaction") ?? false;
    form.addEventListener("formdata", ({ formData }) => {
      const names = elsewhere ? ["q", "state", "group", "sort"] : ["q", "state"].filter((name) => !formData.get(name));
      for (const name of names) formData.delete(name);
    }, { once: true });
  });
  addEventListener("pageshow", count); // after the browser has put back what was ticked
}

// Parts with data-live are replaced by those of the same page as it is now; one with data-calm not while it is read.
const main = document.querySelector("main[data-follow]");
if (main) {
  const away = document.getElementById("away");
  const read = (part) =>
    part.hasAttribute("data-calm") &&
    (part.querySelector("details[open]") || part.contains(document.activeElement) ||
      (!getSelection().isCollapsed && part.contains(getSelection().anchorNode)));

  const update = async () => {
    let wait = Number(main.dataset.follow);
    try {
      const answer = await fetch(main.dataset.from ?? location.href);
      if (answer.status === 204 || !answer.ok) return location.reload();
      const now = new DOMParser().parseFromString(await answer.text(), "text/html");
      away.hidden = true;
      for (const part of document.querySelectorAll("[data-live]")) {
        const other = now.getElementById(part.id);
        if (other && !read(part) && other.innerHTML !== part.innerHTML) part.replaceWith(document.adoptNode(other));
      }
      if (form) filter();
    } catch {
      away.hidden = false;
      wait = 5000;
    }
    setTimeout(update, wait);
  };
  setTimeout(update, Number(main.dataset.follow));
}
