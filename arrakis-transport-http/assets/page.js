// What makes a page live and gives it keys. Every page works without it.

const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// HTML of this server comes into a page in one way only: parsed from an answer to a request for the page itself.
const policy = window.trustedTypes?.createPolicy('arrakis', { createHTML: (html) => html });
const parse = (html) => new DOMParser().parseFromString(policy ? policy.createHTML(html) : html, 'text/html');

// ── Theme ────────────────────────────────────────────────────────────────────────────────────────────────────────────
const theme = $('[data-theme-button]');
if (theme) {
  const themes = ['system', 'light', 'dark'];
  const root = document.documentElement;
  const show = () => { theme.textContent = `Theme: ${root.dataset.theme}`; };
  theme.hidden = false;
  show();
  theme.addEventListener('click', () => {
    root.dataset.theme = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
    document.cookie = `arrakis-theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`;
    show();
  });
}

// ── Navigation. On a narrow screen it scrolls sideways, to the page that is shown. ───────────────────────────────────
const here = $('.side nav [aria-current]');
if (here) {
  const line = here.parentElement;
  line.scrollLeft += here.getBoundingClientRect().left - line.getBoundingClientRect().left - 16;
}

// ── Copying commands. The clipboard is missing over plain HTTP from elsewhere. ───────────────────────────────────────
const copy = async (text) => {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement('textarea');
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand('copy');
  field.remove();
};
for (const command of all('code.cmd')) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'copy';
  button.textContent = 'copy';
  button.addEventListener('click', async () => {
    await copy(command.textContent);
    button.textContent = 'copied';
    setTimeout(() => { button.textContent = 'copy'; }, 1500);
  });
  command.after(button);
}

// ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
let went = 0;
const rows = () => all('[data-row]');
const move = (by) => {
  const list = rows();
  if (!list.length) return;
  const at = list.findIndex((row) => row.classList.contains('at'));
  const next = Math.min(Math.max(at + by, 0), list.length - 1);
  list[at]?.classList.remove('at');
  list[next].classList.add('at');
  list[next].scrollIntoView({ block: 'nearest' });
};
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const inField = event.target.closest('input, textarea, select, [contenteditable]');
  if (event.key === 'Escape') { event.target.blur?.(); return; }
  if (inField) return;
  if (Date.now() - went < 1000) {
    went = 0;
    const link = $(`nav a[data-key="${CSS.escape(event.key)}"]`);
    if (link) { event.preventDefault(); link.click(); }
    return;
  }
  switch (event.key) {
    case 'g': went = Date.now(); break;
    case '/': {
      event.preventDefault();
      const field = $('[data-focus]');
      if (field) field.focus(); else location.href = '/search';
      break;
    }
    case '?': event.preventDefault(); $('[data-help]')?.showModal(); break;
    case 'j': move(1); break;
    case 'k': move(-1); break;
    case 'Enter': {
      const row = $('[data-row].at');
      const link = row && (row.matches('a') ? row : $('[data-open]', row) ?? $('a', row));
      if (link) { event.preventDefault(); link.click(); }
      break;
    }
    case '.': toggle(); break;
  }
});

// ── Live ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
// One tab of a browser listens; it tells the others. So ten tabs take one connection.
const sign = $('[data-live]');
const said = $('[data-live-text]');
let on = true;
let waiting = null;
let newer = 0;
const channel = sign && 'BroadcastChannel' in window ? new BroadcastChannel('arrakis') : null;

function toggle() {
  on = !on;
  sign?.classList.toggle('off', !on);
  if (said) said.textContent = on ? 'live' : 'paused';
  if (on) refresh();
}

function happened(kind) {
  if (kind === 'event') newer += 1;
  const mark = $('[data-newer]');
  if (mark && newer > 0 && kind === 'event') {
    $('[data-newer-count]').textContent = newer;
    $('a', mark).href = location.href;
    mark.hidden = false;
  }
  // At most four times a second, and one reading for all that came meanwhile.
  if (on && waiting === null) waiting = setTimeout(refresh, 1000);
}

// Parts of the page are read anew and put in the place of the old ones, unless somebody is at work there.
async function refresh() {
  waiting = null;
  const parts = all('[data-part]');
  if (!on || !parts.length || document.hidden || getSelection()?.toString()) return;
  const answer = await fetch(location.href, { credentials: 'same-origin' }).catch(() => null);
  if (!answer?.ok || answer.redirected) return;
  const fresh = parse(await answer.text());
  for (const part of parts) {
    const next = $(`[data-part="${CSS.escape(part.dataset.part)}"]`, fresh);
    if (!next || part.contains(document.activeElement) || next.innerHTML === part.innerHTML) continue;
    for (const open of all('details[open]', part)) {
      const same = all('details', next)[all('details', part).indexOf(open)];
      if (same) same.open = true;
    }
    part.replaceWith(document.adoptNode(next));
  }
}

function listen() {
  const stream = new EventSource('/api/live?kind=event,spool');
  const live = (is) => {
    sign.hidden = false;
    sign.classList.toggle('lost', !is);
    if (on) said.textContent = is ? 'live' : 'connecting';
  };
  stream.addEventListener('ready', () => live(true));
  stream.addEventListener('error', () => live(false));
  for (const kind of ['event', 'spool']) {
    stream.addEventListener(kind, () => { channel?.postMessage(kind); happened(kind); });
  }
}

if (sign) {
  channel?.addEventListener('message', ({ data }) => happened(data));
  if (navigator.locks && channel) {
    sign.hidden = false;
    navigator.locks.request('arrakis-live', () => { listen(); return new Promise(() => {}); });
  } else {
    listen();
  }
  document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh(); });
}
