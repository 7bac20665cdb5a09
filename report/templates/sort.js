document.body.classList.add("sorts");
for (const table of document.querySelectorAll("table")) {
  const [body] = table.tBodies;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    button.onclick = () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...[...body.rows].sort((one, two) => {
        const [first, second] = [value(one), value(two)];
        if (!first || !second) return !first - !second;
        return sign * (first - second || first.localeCompare(second));
      }));
    };
  });
}
