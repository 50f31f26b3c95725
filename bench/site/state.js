// What the reader has chosen, and the link that says it: filters, order, and the row or pair that is looked at.

const CHOICES = ["q", "dataset", "scheme", "size", "on", "cost", "level", "sort", "row", "a", "b", "attack"];
const state = Object.fromEntries(CHOICES.map((name) => [name, ""]));

// Takes the address over; false where it names a place on the page and says nothing of the choices.
function readAddress() {
  const hash = location.hash.slice(1);
  if (hash && !hash.includes("=")) return false;
  const said = new URLSearchParams(hash);
  for (const name of CHOICES) state[name] = said.get(name) ?? "";
  return true;
}

// The address of the state after some changes.
function linkTo(changes) {
  const next = { ...state, ...changes };
  const said = new URLSearchParams(CHOICES.filter((name) => next[name] !== "").map((name) => [name, next[name]]));
  return `#${said}`;
}

// A change that is no step of its own for the Back button.
function settle(changes) {
  const hash = linkTo(changes);
  Object.assign(state, changes);
  history.replaceState(null, "", hash === "#" ? location.href.split("#")[0] : hash);
}
