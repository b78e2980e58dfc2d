// Who gets in, and how.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch, signIn, watched } from './lib/browser.mjs';
import { Server } from './lib/server.mjs';

let server;
let browser;
before(async () => { server = await Server.start(); browser = await launch(); });
after(async () => { await browser?.close(); await server?.close(); });

async function fresh(use) {
  const context = await browser.newContext();
  try { return await use(await watched(context, server), context); } finally { await context.close(); }
}

test('whoever is not signed in is asked for a key, and led to where they wanted to go', () => fresh(async (page) => {
  await page.goto(`${server.url}/events?status=SUCCESS`);
  assert.equal(new URL(page.url()).pathname, '/sign-in');
  await page.fill('#key', server.key);
  await page.click('button.main');
  await page.waitForURL(`${server.url}/events?status=SUCCESS`);
  assert.equal(await page.textContent('h1'), 'Events');
  assert.deepEqual(page.faults, []);
}));

test('a wrong key does not sign in', () => fresh(async (page) => {
  await page.goto(`${server.url}/sign-in`);
  await page.fill('#key', server.key.replace(/.{8}$/, '00000000'));
  await page.click('button.main');
  await page.waitForSelector('[role=alert]');
  await page.goto(`${server.url}/events`);
  assert.equal(new URL(page.url()).pathname, '/sign-in');
}));

test('the link of the start signs in once', async () => {
  await fresh(async (page) => {
    await page.goto(server.link);
    assert.equal(await page.textContent('h1'), 'Open the dashboard');
    await page.click('button.main');
    await page.waitForURL(`${server.url}/`);
    await page.goto(`${server.url}/keys`);
    assert.equal(await page.textContent('h1'), 'Keys');
  });
  await fresh(async (page) => {
    await page.goto(server.link);
    if (await page.isVisible('form[action="/sign-in/link"] button')) await page.click('form[action="/sign-in/link"] button');
    await page.waitForSelector('#key');
    await page.goto(`${server.url}/keys`);
    assert.equal(new URL(page.url()).pathname, '/sign-in');
  });
});

test('scripts cannot read the cookie, and signing out ends the session', () => fresh(async (page, context) => {
  await signIn(page, server);
  const cookies = await context.cookies();
  const secret = cookies.find((cookie) => cookie.httpOnly);
  assert.equal(secret?.sameSite, 'Strict');
  assert.ok(!(await page.evaluate(() => document.cookie)).includes(secret.value));
  await page.click('text=Sign out');
  await page.waitForSelector('#key');
  // Nor does the old cookie open anything any more.
  await context.addCookies([secret]);
  await page.goto(`${server.url}/events`);
  assert.equal(new URL(page.url()).pathname, '/sign-in');
}));
