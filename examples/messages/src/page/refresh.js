// Puts the newest page's content into this one every five seconds, without losing the place where one reads.
const PERIOD = 5000;
const state = document.getElementById("state");

async function refresh() {
  try {
    const answer = await fetch("/ui", { cache: "no-store" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(page.querySelector("main"));
    state.textContent = "refreshes every 5 seconds";
  } catch {
    state.textContent = "the server does not answer; trying again every 5 seconds";
  }
}

setInterval(refresh, PERIOD);
