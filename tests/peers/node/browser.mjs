// A browser without windows: follows redirects with cookies until one leads to *target*, and returns that URL.

const MOST_REDIRECTS = 10;

export async function follow(url, target) {
  const cookies = new Map();
  for (let redirects = 0; redirects < MOST_REDIRECTS; redirects += 1) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const response = await fetch(url, { redirect: 'manual', headers: cookie ? { cookie } : {} });
    for (const line of response.headers.getSetCookie()) {
      const [name, value] = line.split(';', 1)[0].split('=', 2);
      cookies.set(name, value);
    }
    const location = response.headers.get('location');
    if (!location) throw new Error(`${response.status} at ${url}: ${await response.text()}`);
    url = new URL(location, url);
    if (url.href.startsWith(target)) return url;
  }
  throw new Error('too many redirects');
}
