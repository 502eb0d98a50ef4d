// Keeps the page up to date without a reload: the relay says that something happened, the page is asked for again, and
// what differs is changed in place, so that focus, selection and open details stay. Without this file everything works.
"use strict";

(() => {
  const body = document.body;
  const topic = body.dataset.live;
  if (!topic) return;

  const SOON = 300; // ms from the first sign of a change to asking
  const PAUSE = 2000; // ms between two questions at least
  const QUIET = 15000; // ms without news after which the page is asked for all the same: times move on
  const ALONE = 5000; // the same while there is no stream
  const RETRY = 30000; // ms until a stream that was refused is tried again
  const PATIENCE = 20000; // ms for an answer
  const KINDS = ["event", "attempt", "target", "upstream", "notice", "missed"];
  const stale = document.getElementById("stale");

  let stream = null;
  let listening = false;
  let timer = 0;
  let askedAt = 0;
  let asking = false;
  let news = false;
  let shownAt = new Date();

  const isAboutThis = (message) => {
    if (topic === "all" || message.type === "missed") return true;
    try {
      const data = JSON.parse(message.data);
      const about = topic === "target" && message.type === "target" ? data.name : data[topic];
      return about === undefined || about === body.dataset.liveValue;
    } catch {
      return true;
    }
  };

  const askIn = (wait) => {
    clearTimeout(timer);
    timer = setTimeout(ask, wait);
  };

  const askSoon = () => {
    if (news) return;
    news = true;
    if (!asking) askIn(Math.max(SOON, askedAt + PAUSE - Date.now()));
  };

  const heard = (message) => {
    if (isAboutThis(message)) askSoon();
  };

  const listen = () => {
    if (stream || document.hidden) return;
    stream = new EventSource("/api/v1/stream");
    stream.onopen = () => {
      listening = true;
      // What happened between the page's making and now was told to nobody.
      askSoon();
    };
    stream.onerror = () => {
      listening = false;
      if (stream && stream.readyState === EventSource.CLOSED) {
        stream = null;
        setTimeout(listen, RETRY);
      }
      askIn(SOON);
    };
    for (const kind of KINDS) stream.addEventListener(kind, heard);
  };

  // A browser has six connections to one server: a page that nobody looks at gives its own back.
  const leave = () => {
    if (stream) stream.close();
    stream = null;
    listening = false;
    clearTimeout(timer);
  };

  async function ask() {
    if (asking || document.hidden) return;
    asking = true;
    news = false;
    askedAt = Date.now();
    try {
      const answer = await fetch(location.href, {
        headers: { accept: "text/html" }, cache: "no-store", signal: AbortSignal.timeout(PATIENCE),
      });
      if (answer.redirected) return void location.reload();
      if (!answer.ok) throw new Error(String(answer.status));
      show(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch {
      const since = shownAt.toISOString().slice(11, 19);
      setText(stale, `The relay does not answer. What you see is from ${since} UTC and may be out of date.`);
    } finally {
      asking = false;
      askIn(news ? PAUSE : listening ? QUIET : ALONE);
    }
  }

  function show(fresh) {
    shownAt = new Date();
    setText(stale, "");
    document.title = fresh.title;
    for (const id of ["main", "live-state"]) {
      const mine = document.getElementById(id);
      const theirs = fresh.getElementById(id);
      if (mine && theirs) become(mine, theirs);
    }
    const footer = document.getElementById("live-state");
    if (footer) footer.dataset.state = listening ? "live" : "polling";
  }

  const setText = (node, text) => {
    if (node.textContent !== text) node.textContent = text;
  };

  // What tells siblings apart, so that one that is new does not push the others aside.
  const keyOf = (node) =>
    node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || node.getAttribute("aria-labelledby") || "" : "";
  const isSame = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

  // Make one node like another of its kind, keeping it.
  function become(mine, theirs) {
    if (mine.nodeType !== Node.ELEMENT_NODE) {
      if (mine.nodeValue !== theirs.nodeValue) mine.nodeValue = theirs.nodeValue;
      return;
    }
    for (const { name } of [...mine.attributes]) {
      // Whether details are open is the reader's choice.
      if (!theirs.hasAttribute(name) && !(name === "open" && mine.nodeName === "DETAILS")) mine.removeAttribute(name);
    }
    for (const { name, value } of theirs.attributes) {
      if (mine.getAttribute(name) !== value) mine.setAttribute(name, value);
    }
    const wanted = [...theirs.childNodes];
    wanted.forEach((one, index) => {
      let there = mine.childNodes[index];
      if (there && keyOf(one) && !isSame(there, one)) {
        // Nothing is moved: a node that is moved loses the focus. What is in its way is no longer wanted there.
        const known = [...mine.childNodes].slice(index).find((other) => isSame(other, one));
        while (known && there !== known) {
          there.remove();
          there = mine.childNodes[index];
        }
      }
      if (there && isSame(there, one)) become(there, one);
      else mine.insertBefore(document.adoptNode(one), there || null);
    });
    while (mine.childNodes.length > wanted.length) mine.lastChild.remove();
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return leave();
    listen();
    askIn(SOON);
  });
  addEventListener("pagehide", leave);
  listen();
  askIn(QUIET);
})();
