// What comes in is seen at once, in as many tabs as somebody likes.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from './lib/server.mjs';
import { stage } from './lib/test.mjs';

const prompt = (session, text) => ({ session_id: session, cwd: '/home/ada/shop', hook_event_name: 'UserPromptSubmit', prompt: text });

const on = stage(async ({ server }) => {
  server.hook(prompt('before', 'What came before the page was opened'));
  await server.settled();
});

const isLive = (page) => page.waitForFunction(() => {
  const sign = document.querySelector('[data-live]');
  return sign && !sign.hidden && !sign.classList.contains('lost') && document.querySelector('[data-live-text]').textContent === 'live';
});

/** Waits until the stream of this page is open. */
async function open(page, at) {
  const stream = page.waitForResponse((response) => response.url().includes('/api/live'));
  await page.goto(on.server.url + at);
  assert.equal((await stream).status(), 200);
  await isLive(page);
  // The server says that it is ready; then nothing is missed.
  await page.waitForTimeout(300);
}

test('an event is announced on the events page in two seconds', () => on.page(async (page) => {
  await open(page, '/events');
  assert.ok(!(await page.isVisible('[data-newer]')));
  const sent = Date.now();
  on.server.hook(prompt('announced', 'Is this announced?'));
  await page.waitForSelector('[data-newer]:not([hidden])', { timeout: 5000 });
  const took = Date.now() - sent;
  assert.ok(took < 2000, `it took ${took} ms`);
  // The list itself does not move under somebody's eyes; whoever follows the link sees the event.
  assert.equal(await page.locator('td:has-text("Is this announced?")').count(), 0);
  await page.click('[data-newer] a');
  await page.waitForSelector('td:has-text("Is this announced?")');
}));

test('an event is on the overview in two seconds, without a reload', () => on.page(async (page) => {
  await open(page, '/');
  await page.evaluate(() => { window.__same = true; });
  const sent = Date.now();
  on.server.hook(prompt('overview', 'Is this on the overview?'));
  await page.waitForSelector('[data-part=running] td:has-text("Is this on the overview?")', { timeout: 5000 });
  const took = Date.now() - sent;
  assert.ok(took < 2000, `it took ${took} ms`);
  assert.equal(await page.evaluate(() => window.__same), true);
}));

test('a page that is paused stays as it is, and catches up', () => on.page(async (page) => {
  await open(page, '/');
  await page.keyboard.press('.');
  assert.equal(await page.textContent('[data-live-text]'), 'paused');
  on.server.hook(prompt('paused', 'Does a pause hold?'));
  await on.server.settled();
  await page.waitForTimeout(2000);
  const row = page.locator('[data-part=running] td:has-text("Does a pause hold?")');
  assert.equal(await row.count(), 0);
  await page.keyboard.press('.');
  await row.first().waitFor({ timeout: 2000 });
}));

test('ten tabs share one stream, and an eleventh loads in a second', () => on.page(async (first, context) => {
  let streams = 0;
  context.on('request', (request) => { if (request.url().includes('/api/live')) streams += 1; });
  const tabs = [first];
  await first.goto(`${on.server.url}/`);
  while (tabs.length < 10) {
    const tab = await context.newPage();
    await tab.goto(`${on.server.url}${['/', '/events', '/conversations', '/usage'][tabs.length % 4]}`);
    tabs.push(tab);
  }
  await Promise.all(tabs.map((tab) => isLive(tab)));
  const began = Date.now();
  const eleventh = await context.newPage();
  const answer = await eleventh.goto(`${on.server.url}/events`, { waitUntil: 'load' });
  const took = Date.now() - began;
  assert.equal(answer.status(), 200);
  assert.ok(took < 1000, `it took ${took} ms`);
  assert.equal(streams, 1);
  // What the one stream brings is told to every tab.
  on.server.hook(prompt('tabs', 'Does every tab know?'));
  await eleventh.waitForSelector('[data-newer]:not([hidden])', { timeout: 3000 });
  // Where the tab that listens is closed another one takes over.
  await first.close();
  await until('a new stream', () => streams > 1, 5000);
}));
