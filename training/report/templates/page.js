"use strict";
document.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0];
  const column = [...head.parentNode.children].indexOf(head);
  const down = head.getAttribute("aria-sort") !== "descending";
  const value = (row) => row.children[column].dataset.order ?? "";
  const compare = (one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a === "" || b === "") return a === b ? text(one).localeCompare(text(other), undefined, { numeric: true }) * (down ? -1 : 1) : a === "" ? 1 : -1;
    return (Number(a) - Number(b)) * (down ? -1 : 1);
  };
  const text = (row) => row.children[column].textContent;
  for (const other of head.parentNode.children) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...[...body.rows].sort(compare));
}));
document.querySelectorAll(".pictures button").forEach((button) => button.addEventListener("click", () => {
  const large = button.closest("figure").classList.toggle("large");
  button.setAttribute("aria-pressed", String(large));
}));
