// The search of the page of error messages: rows whose message can be a part of the pasted line.
(() => {
  const place = document.getElementById("message-search");
  if (!place) return;
  const rows = [...document.querySelectorAll("table tbody tr")].map((row) => {
    const pieces = row.cells[0].textContent.split("…").map(plain);
    return { row, pieces: pieces.filter((piece) => piece.length > 2) };
  });
  const sections = [...document.querySelectorAll("article section section")];
  const field = document.createElement("textarea");
  field.rows = 3;
  field.placeholder = "a line of a log, or some words";
  field.setAttribute("aria-label", "Line of a log");
  const count = document.createElement("p");
  count.setAttribute("role", "status");
  place.append(field, count);

  function plain(text) {
    return text.toLowerCase().replace(/\\(.)/g, "$1").replace(/\s+/g, " ").trim();
  }

  // the letters of the message that stand in the line in their order, or -1
  function fit(pieces, line) {
    let from = 0;
    let letters = 0;
    for (const piece of pieces) {
      const at = line.indexOf(piece, from);
      if (at < 0) return -1;
      from = at + piece.length;
      letters += piece.length;
    }
    return letters;
  }

  function search() {
    const line = plain(field.value);
    const words = line.split(" ").filter((word) => word.length > 2);
    const fits = rows.map(({ pieces }) => fit(pieces, line));
    const best = Math.max(...fits);
    let shown = 0;
    rows.forEach(({ row, pieces }, index) => {
      const found =
        best > 0
          ? fits[index] >= best / 2 // a line that is a message
          : words.every((word) => pieces.some((piece) => piece.includes(word)));
      row.hidden = line !== "" && !found;
      row.classList.toggle("best", line !== "" && best > 0 && fits[index] === best);
      shown += row.hidden ? 0 : 1;
    });
    for (const section of sections) section.hidden = !section.querySelector("tbody tr:not([hidden])");
    count.textContent = line === "" ? "" : `${shown} of ${rows.length} messages`;
  }

  field.addEventListener("input", search);
})();
