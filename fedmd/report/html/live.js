"use strict";
// A page that follows a run asks for itself again and puts in what has changed, part by part.
(() => {
  const parts = () => [...document.querySelectorAll("[data-part]")];
  const sent = new Map(parts().map((part) => [part.dataset.part, part.outerHTML]));
  const say = (words) => (document.getElementById("live").textContent = words); // the element changes with its part
  let tag = "";
  const put = (html) => {
    const next = new DOMParser().parseFromString(html, "text/html");
    const opened = new Set([...document.querySelectorAll("details[open] > summary")].map((e) => e.textContent));
    for (const part of next.querySelectorAll("[data-part]")) {
      const name = part.dataset.part;
      if (sent.get(name) === part.outerHTML) continue;
      sent.set(name, part.outerHTML);
      const old = parts().find((one) => one.dataset.part === name);
      if (!old) return location.reload(); // there is more on the page than there was
      const focused = old.contains(document.activeElement) ? document.activeElement : null;
      part.querySelectorAll("details").forEach((one) => {
        if (opened.has(one.querySelector("summary").textContent)) one.open = true;
      });
      const fresh = document.importNode(part, true);
      old.replaceWith(fresh);
      enhance(fresh);
      if (focused) [...fresh.querySelectorAll(focused.tagName)].find((e) => e.textContent === focused.textContent)?.focus();
    }
  };
  const ask = async () => {
    try {
      const asked = { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" };
      const answer = await fetch(location.href, asked).catch(() => null);
      if (answer?.ok) {
        put(await answer.text());
        tag = answer.headers.get("ETag") ?? "";
      }
      if (!answer) say("the server of this page is gone; what it said last:");
      else say(answer.ok || answer.status === 304 ? "live" : "nothing to read at this moment");
    } finally {
      setTimeout(ask, document.hidden ? 10000 : 1500);
    }
  };
  setTimeout(ask, 1000);
})();
