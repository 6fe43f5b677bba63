// Follow a client: its mean score by round, held against the threshold, and the samples of the round that is chosen.
const chosen = { client: null, round: null }; // survives a page that updates itself

function follow(block) {
  const data = JSON.parse(block.querySelector("script").textContent);
  const [clients, rounds] = block.querySelectorAll("select");
  const chart = block.querySelector(".chart"), body = block.querySelector("tbody"), told = block.querySelector("[role=status]");
  const option = (value, text) => Object.assign(document.createElement("option"), { value, textContent: text });
  for (const [id, client] of Object.entries(data.clients))
    clients.append(option(id, `client ${id}${client.malicious ? " ▲ malicious" : ""}`));
  data.rounds.forEach((round, i) => rounds.append(option(round, `round ${round}, ${data.phases[i]}`)));
  const suspicion = ([, client]) => client.flagged.reduce((sum, share) => sum + (share ?? 0), 0);
  const first = Object.entries(data.clients).sort((a, b) => suspicion(b) - suspicion(a))[0][0];
  clients.value = chosen.client in data.clients ? chosen.client : first;

  const draw = () => {
    const client = data.clients[clients.value];
    const known = [...client.mean, ...data.threshold].filter((value) => value !== null), least = Math.min(0, ...known);
    const positive = known.filter((value) => value > 0), high = Math.max(...known, least + 1e-12);
    const log = least === 0 && high > 30 * Math.min(...positive), low = log ? Math.min(...positive) : least;
    const [height, left, top, bottom] = [250, 56, 36, 34];
    const width = Math.max(300, chart.clientWidth || 760); // so that words are as large as those of the page
    const scale = (value) => (log ? Math.log(Math.max(value, low) / low) / Math.log(high / low) : (value - low) / (high - low));
    const span = Math.max(1, data.rounds.length - 1), step = (width - left - 12) / (span + 1);
    const x = (i) => left + (i + 0.5) * step, y = (value) => height - bottom - scale(value) * (height - bottom - top);
    chart.innerHTML = "<svg></svg>";
    const svg = chart.firstElementChild;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${data.score} of client ${clients.value} by round; the table below has its samples.`);
    const add = (name, attributes, text = "") => {
      const element = document.createElementNS(svg.namespaceURI, name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      element.textContent = text;
      svg.append(element);
      return element;
    };
    data.phases.forEach((phase, i) => {
      add("rect", { x: x(i) - step / 2, y: top, width: step + 0.5, height: height - bottom - top, class: `phase ${phase}` });
      if (phase === data.phases[i - 1]) return;
      const end = data.phases.findIndex((other, j) => j > i && other !== phase);
      const middle = (i + (end < 0 ? data.phases.length : end) - 1) / 2;
      if (middle - i > 1 || step > 60) add("text", { x: x(middle), y: top - 6, "text-anchor": "middle" }, phase);
    });
    add("text", { x: 2, y: 12 }, data.score);
    const ticks = log ? [low, Math.sqrt(low * high), high] : [low, (low + high) / 2, high];
    for (const value of ticks) {
      add("line", { x1: left, x2: width - 12, y1: y(value), y2: y(value), class: "grid" });
      add("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, Number(value.toPrecision(2)).toString());
    }
    const every = Math.ceil(28 / step);
    data.rounds.forEach((round, i) => {
      if (i % every === 0) add("text", { x: x(i), y: height - bottom + 17, "text-anchor": "middle" }, round);
    });
    add("text", { x: (width + left) / 2, y: height - 2, "text-anchor": "middle" }, "Round");
    const path = (values, half) => values.map((value, i) => {
      if (value === null) return "";
      const pen = i && values[i - 1] !== null ? "L" : "M";
      return `${pen}${x(i) - half} ${y(value)}` + (half ? `H${x(i) + half}` : "");
    }).join("");
    add("path", { d: path(data.threshold, step / 2), class: "threshold" });
    add("path", { d: path(client.mean, 0), class: "mean" });
    data.rounds.forEach((round, i) => {
      const refused = client.refused[round], share = client.flagged[i] ?? 0, mean = client.mean[i];
      if (mean === null && !refused) return;
      const words = [`round ${round}`];
      if (mean !== null) words.push(`mean ${mean}`, `${Math.round(100 * share)} % flagged`);
      if (refused) words.push(refused);
      const classes = `dot ${share > 0 ? "flagged" : ""} ${refused ? "refused" : ""} ${rounds.value == round ? "chosen" : ""}`;
      const dot = add("circle", { cx: x(i), cy: mean === null ? height - bottom : y(mean), r: step > 12 ? 5 : 3, class: classes });
      dot.append(Object.assign(document.createElementNS(svg.namespaceURI, "title"), { textContent: words.join(", ") }));
      dot.addEventListener("click", () => ((rounds.value = round), show()));
    });
  };
  const show = () => {
    [chosen.client, chosen.round] = [clients.value, rounds.value];
    const client = data.clients[clients.value], samples = data.samples[clients.value]?.[rounds.value] ?? [];
    const poisons = client.malicious && data.poisoned.includes(Number(rounds.value));
    const poisoned = (index) => poisons && (data.poisoned_samples === null || index < data.poisoned_samples);
    const cells = ([index, label, before, after, steps, action]) =>
      [index, action + (poisoned(index) ? ", poisoned" : ""), before ?? "–", action === "rejected" ? "–" : after ?? "–", steps, label];
    body.replaceChildren(...samples.map((sample) => {
      const row = document.createElement("tr");
      row.className = sample[5];
      row.append(...cells(sample).map((text, i) =>
        Object.assign(document.createElement(i ? "td" : "th"), { textContent: text, className: i > 1 ? "number" : "verdict" })));
      row.cells[0].scope = "row";
      return row;
    }));
    const refused = client.refused[rounds.value];
    told.textContent = `Client ${clients.value} in round ${rounds.value}: ` +
      (samples.length ? `${samples.length} samples` : "nothing was judged") + (refused ? `; refused: ${refused}` : "") + ".";
    draw();
  };
  const firstRound = () => {
    const flagged = data.clients[clients.value].flagged;
    const worst = flagged.lastIndexOf(Math.max(...flagged.map((share) => share ?? -1)));
    rounds.value = data.rounds[Math.max(worst, 0)];
  };
  addEventListener("resize", () => block.isConnected && draw());
  if (chosen.round !== null && data.rounds.includes(Number(chosen.round))) rounds.value = chosen.round;
  else firstRound();
  clients.addEventListener("change", () => (firstRound(), show()));
  rounds.addEventListener("change", show);
  for (const row of document.querySelectorAll("[data-client]")) {
    if (!(row.dataset.client in data.clients)) continue;
    row.classList.add("follows");
    row.addEventListener("click", () => {
      clients.value = row.dataset.client;
      firstRound();
      show();
      block.scrollIntoView({ block: "nearest" });
    });
  }
  show();
}
