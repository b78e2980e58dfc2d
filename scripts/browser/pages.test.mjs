// Every page, at every width, in light and dark: nothing sticks out, nothing fails, nothing keeps anybody from reading it.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { launch, signedIn, violations, watchPolicy, watched } from './lib/browser.mjs';
import { Server } from './lib/server.mjs';
import { importPast, playPresent } from './lib/week.mjs';

const axe = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const recorded = path.resolve(import.meta.dirname, '../../arrakis-core/testdata/transcripts');

let server;
let browser;
let state;
const pages = ['/', '/?w=7d', '/conversations', '/search', '/search?q=invoice', '/usage', '/usage?w=today', '/events', '/events?q=nothing-has-this-word',
  '/events?host=a&session=b', '/failed', '/machines', '/keys', '/c/nothing-is-here'];

before(async () => {
  server = await Server.start();
  const past = await importPast(server);
  const copy = path.join(server.home, '.claude/projects/-home-dev-project');
  fs.cpSync(recorded, copy, { recursive: true });
  server.run('import');
  const present = await playPresent(server);
  server.hook('{"session_id":"0b1c","note":"this is not an event"}');
  await server.settled();
  browser = await launch();
  state = await signedIn(browser, server);
  const events = JSON.parse(server.run('events', 'list', '--json', '--limit', '200'));
  const failed = events.find((event) => event.status === 'INVALID');
  assert.ok(failed, 'one event is not understood');
  pages.push(`/events/${failed.id}`, `/events/${events.find((event) => event.eventType === 'PreToolUse').id}`);
  const recordedIds = fs.readdirSync(recorded).filter((name) => name.endsWith('.jsonl')).map((name) => name.slice(0, -6));
  for (const id of [past.rounding, present.returns, ...recordedIds]) pages.push(`/c/${id}`);
  pages.push(`/c/${past.rounding}?view=focus`, `/c/${past.rounding}?view=skim`);
});
after(async () => { await browser?.close(); await server?.close(); });

/** Runs axe in a world of its own: the page's policy stays as it is. */
async function serious(page) {
  const session = await page.context().newCDPSession(page);
  const { frameTree } = await session.send('Page.getFrameTree');
  const { executionContextId: contextId } = await session.send('Page.createIsolatedWorld', { frameId: frameTree.frame.id, worldName: 'axe' });
  await session.send('Runtime.evaluate', { contextId, expression: axe });
  const expression = 'axe.run(document, { resultTypes: ["violations"] }).then(({ violations, passes }) => ({ passes: passes.length, violations: violations.map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.slice(0, 3).map((node) => node.html.slice(0, 160) + " " + (node.any[0]?.message ?? "")) })) }))';
  const { result, exceptionDetails } = await session.send('Runtime.evaluate', { contextId, expression, awaitPromise: true, returnByValue: true });
  assert.ok(!exceptionDetails, JSON.stringify(exceptionDetails));
  await session.detach();
  assert.ok(result.value.passes > 5, 'axe has looked at the page');
  return result.value.violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
}

/** Elements that a box around them cuts off at the right, though it does not scroll. */
const cutOff = () => {
  const found = [];
  for (const element of document.querySelectorAll('main *')) {
    if (!element.checkVisibility() || element.closest('svg, [hidden]')) continue;
    const { right, width } = element.getBoundingClientRect();
    if (width === 0) continue;
    for (let box = element.parentElement; box && box !== document.body; box = box.parentElement) {
      const style = getComputedStyle(box);
      const scrolls = ['auto', 'scroll'].includes(style.overflowX);
      if (scrolls || style.textOverflow === 'ellipsis') break;
      const clips = style.overflowX !== 'visible' || style.contentVisibility === 'auto' || style.contain.includes('paint');
      if (clips && right > box.getBoundingClientRect().right + 1) {
        found.push(`${element.tagName}.${element.className} in ${box.tagName}.${box.className}: ${Math.round(right - box.getBoundingClientRect().right)} px`);
        break;
      }
    }
  }
  return found.slice(0, 3);
};

for (const width of [360, 768, 1600]) {
  for (const colorScheme of ['light', 'dark']) {
    test(`all pages at ${width} px in ${colorScheme}`, async (t) => {
      const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme, storageState: state });
      await watchPolicy(context);
      const page = await watched(context, server);
      for (const at of pages) {
        await t.test(at, async () => {
          page.faults.length = 0;
          const answer = await page.goto(server.url + at);
          assert.equal(answer.status(), at === '/c/nothing-is-here' ? 404 : 200);
          // Everything is open and laid out, also what is far below.
          await page.evaluate(() => { for (const details of document.querySelectorAll('main details')) details.open = true; });
          const { document: wide, window: seen } = await page.evaluate(() => ({ document: document.documentElement.scrollWidth, window: innerWidth }));
          assert.equal(seen, width);
          assert.ok(wide <= width, `the document is ${wide} px wide`);
          assert.deepEqual(await page.evaluate(cutOff), [], 'cut off');
          assert.deepEqual(await serious(page), [], 'axe');
          assert.deepEqual(await violations(page), [], 'policy');
          const expected = at === '/c/nothing-is-here' ? page.faults.filter((fault) => !fault.includes('404')) : page.faults;
          assert.deepEqual(expected, [], 'faults');
        });
      }
      await context.close();
    });
  }
}

test('the page where one signs in is as good', async () => {
  for (const colorScheme of ['light', 'dark']) {
    const context = await browser.newContext({ viewport: { width: 360, height: 740 }, colorScheme });
    await watchPolicy(context);
    const page = await watched(context, server);
    await page.goto(`${server.url}/sign-in`);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
    assert.deepEqual(await serious(page), []);
    assert.deepEqual([...await violations(page), ...page.faults], []);
    await context.close();
  }
});

test('the themes differ, and the choice is kept', async () => {
  const context = await browser.newContext({ colorScheme: 'light', storageState: state });
  const page = await watched(context, server);
  await page.goto(`${server.url}/`);
  const paper = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const light = await paper();
  await page.click('[data-theme-button]');
  await page.click('[data-theme-button]');
  assert.equal(await page.textContent('[data-theme-button]'), 'Theme: dark');
  const dark = await paper();
  assert.notEqual(dark, light);
  await page.goto(`${server.url}/events`);
  assert.equal(await paper(), dark);
  await context.close();
});

test('on a narrow screen the navigation shows where one is, and one can sign out', async () => {
  const context = await browser.newContext({ viewport: { width: 360, height: 740 }, storageState: await signedIn(browser, server) });
  const page = await watched(context, server);
  for (const at of ['/', '/usage', '/keys']) {
    await page.goto(server.url + at);
    const { x, width } = await page.locator('.side nav [aria-current]').boundingBox();
    assert.ok(x >= 0 && x + width <= 360, `${at} is at ${x}`);
  }
  await page.click('text=Sign out');
  await page.waitForURL(/\/sign-in/);
  await context.close();
});
