#!/bin/bash
# Two network namespaces joined by a wire, a Testudo host in each, and a program whose own connection is protected by a
# policy that it has set itself (setsockopt IP_IPSEC_POLICY); the same program without one goes in the clear.
# Run it as root, from a checkout after `npm run build`, where a C compiler is. Everything is removed at the end.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ "$(id -u)" = 0 ] || { echo "run.sh: namespaces and TUN devices need root" >&2; exit 1; }

testudo=(node "$here/../../dist/src/cli/testudo.js")
a=testudo-$$-a b=testudo-$$-b
dir=$(mktemp -d)
started=()
clean_up() {
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  ip netns del "$a" 2>/dev/null || true
  ip netns del "$b" 2>/dev/null || true
  rm -rf "$dir"
}
trap clean_up EXIT
say() { printf '\n── %s\n' "$*"; }

cc -Wall -Wextra -o "$dir/whisper" "$here/whisper.c"
ip netns add "$a"
ip netns add "$b"
ip link add w0 netns "$a" type veth peer name w0 netns "$b"
for end in "$a 1" "$b 2"; do
  read -r space number <<< "$end"
  ip -n "$space" link set lo up
  ip -n "$space" link set w0 up
  ip -n "$space" address add "192.0.2.$number/24" dev w0
done
for name in a b; do
  ip netns exec "${!name}" "${testudo[@]}" up -f "$here/$name.conf" \
    --socket "$dir/$name/pfkey" --state "$dir/$name/state" > "$dir/$name.log" &
  started+=($!)
done
for name in a b; do "${testudo[@]}" status --socket "$dir/$name/pfkey" --wait 20 > /dev/null; done

# Two servers that know nothing of IPsec.
ip netns exec "$b" node -e '
  for (const port of [7000, 7001])
    require("net").createServer((c) => c.on("data", (text) => c.write("you said " + text))).listen(port)' &
started+=($!)
for port in 7000 7001; do
  until ip netns exec "$b" bash -c "ss -Hltn sport = :$port" | grep -q .; do sleep 0.1; done
done
if command -v tcpdump > /dev/null; then
  ip netns exec "$a" tcpdump -i w0 -n -l 'ip' > "$dir/wire" 2> "$dir/tcpdump" &
  started+=($!)
  until grep -qs listening "$dir/tcpdump"; do sleep 0.1; done
fi

exec=(ip netns exec "$a" "${testudo[@]}" exec --socket "$dir/a/pfkey" --)
say 'whisper 192.0.2.2 7000, with a policy of its own'
"${exec[@]}" "$dir/whisper" 192.0.2.2 7000 'a secret'
say 'whisper -p 192.0.2.2 7001, without one'
"${exec[@]}" "$dir/whisper" -p 192.0.2.2 7001 'no secret'

if [ -e "$dir/wire" ]; then
  say 'what the wire has seen (tcpdump)'
  sleep 0.5
  cat "$dir/wire"
fi
