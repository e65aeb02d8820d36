#!/bin/bash
# Two network namespaces joined by a wire, a Testudo host in each, and unmodified ping and curl between them, through ESP.
# Run it as root, from a checkout after `npm run build` or with Testudo installed. Everything is removed at the end.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ "$(id -u)" = 0 ] || { echo "namespaces.sh: namespaces and TUN devices need root" >&2; exit 1; }

built=$here/../dist/src/cli
if [ -e "$built/testudo.js" ]; then
  testudo() { node "$built/testudo.js" "$@"; }
  setkey() { node "$built/setkey.js" "$@"; }
  up=(node "$built/testudo.js" up)
else
  testudo() { command testudo "$@"; }
  setkey() { command setkey "$@"; }
  up=(testudo up)
fi

a=testudo-$$-a b=testudo-$$-b
dir=$(mktemp -d)
started=()
clean_up() {
  # The hosts undo what they have done to their namespaces before these go.
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  ip netns del "$a" 2>/dev/null || true
  ip netns del "$b" 2>/dev/null || true
  rm -rf "$dir"
}
trap clean_up EXIT
say() { printf '\n── %s\n' "$*"; }

ip netns add "$a"
ip netns add "$b"
ip link add w0 netns "$a" type veth peer name w0 netns "$b"
for end in "$a 1" "$b 2"; do
  read -r space number <<< "$end"
  ip -n "$space" link set lo up
  ip -n "$space" link set w0 up
  ip -n "$space" address add "192.0.2.$number/24" dev w0
  ip -n "$space" address add "2001:db8::$number/64" dev w0 nodad
done

for name in a b; do
  space=${!name}
  ip netns exec "$space" "${up[@]}" -f "$here/transport/$name.conf" \
    --socket "$dir/$name/pfkey" --state "$dir/$name/state" > "$dir/$name.log" &
  started+=($!)
done
for name in a b; do testudo status --socket "$dir/$name/pfkey" --wait 20 > /dev/null; done

if command -v tcpdump > /dev/null; then
  ip netns exec "$a" tcpdump -i w0 -n -l 'ip or ip6' > "$dir/wire" 2> "$dir/tcpdump" &
  started+=($!)
  until grep -q listening "$dir/tcpdump"; do sleep 0.1; done
fi

say 'ping, IPv4 and IPv6'
ip netns exec "$a" ping -n -c 2 -i 0.3 192.0.2.2
ip netns exec "$a" ping -n -c 2 -i 0.3 2001:db8::2

say 'curl'
ip netns exec "$b" node -e \
  'require("http").createServer((_, answer) => answer.end("Hello from B, through ESP.\n")).listen(8080, "::")' &
started+=($!)
until ip netns exec "$b" bash -c ': > /dev/tcp/127.0.0.1/8080' 2> /dev/null; do sleep 0.1; done
ip netns exec "$a" curl -sS http://192.0.2.2:8080/
ip netns exec "$a" curl -sS 'http://[2001:db8::2]:8080/'

if [ -e "$dir/wire" ]; then
  say 'what the wire has seen (tcpdump)'
  sleep 0.5
  head -n 6 "$dir/wire"
  printf '… %s packets, %s of them ESP\n' "$(grep -c . "$dir/wire")" "$(grep -c 'ESP(spi' "$dir/wire")"
fi

say 'setkey -D, the first lines'
setkey --socket "$dir/a/pfkey" -D | head -n 9
say 'testudo status'
testudo status --socket "$dir/a/pfkey"
