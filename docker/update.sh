#!/bin/sh
# Replaces every replica by one of the image and settings as they are now, one after the other: a new one starts and is
# healthy, the proxy takes it in, an old one drains and goes. Nothing is lost, and there is one replica more meanwhile.
#   docker compose build && docker/update.sh [service|service-gpu]
set -eu
service=${1:-service}
longest=${UNET_UPDATE_WAIT_S:-300} # for a new replica to be healthy

replicas() { docker compose ps --all --quiet "$service"; }

# Wait for one container; 1 where it ends, or is not healthy in time.
healthy() {
  until=$(($(date +%s) + longest))
  while [ "$(date +%s)" -lt "$until" ]; do
    case $(docker inspect --format '{{.State.Status}} {{.State.Health.Status}}' "$1") in
      "running healthy") return 0 ;;
      "running starting" | "created "*) sleep 0.5 ;;
      *) return 1 ;;
    esac
  done
  return 1
}

# An old one goes: its drain is waited for, stop_grace_period at most.
retire() { docker stop "$1" >/dev/null && docker rm "$1" >/dev/null; }

# However this ends in the middle of a round, there are as many replicas as before, or the next run would count one more.
before= leaving=
ended() {
  trap - HUP INT TERM
  if [ -n "$leaving" ]; then
    echo "a replica of $service drains and goes, those that it has not come to stay as they were" >&2
    retire "$leaving"
  elif [ -n "$before" ]; then
    for newer in $(replicas); do
      case $before in *"$newer"*) continue ;; esac
      docker stop --time 30 "$newer" >/dev/null || true # the proxy may have found it already
      docker rm --force "$newer" >/dev/null
      echo "the new replica $newer of $service was removed; those that ran before go on" >&2
    done
  fi
}
trap ended EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

count=$(replicas | grep -c . || true)
# one that was killed would be started again as it was, and count as new
removed=$(docker compose rm --force "$service" 2>&1) || { echo "$removed" >&2; exit 1; }
old=$(docker compose ps --quiet "$service")
if [ -z "$old" ]; then
  case $service in service-gpu) start="--profile gpu up --detach proxy-gpu" ;; *) start="up --detach" ;; esac
  echo "no replica of $service runs; start it with: docker compose $start" >&2
  exit 1
fi
for container in $old; do
  before=$(replicas)
  docker compose up --detach --no-deps --no-recreate --scale "$service=$((count + 1))" "$service"
  # whether those that ran before are healthy does not matter: they go
  for started in $(replicas); do
    case $before in *"$started"*) continue ;; esac
    healthy "$started" && continue
    docker logs --tail 3 "$started" >&2
    echo "a new replica of $service is not healthy" >&2
    exit 1
  done
  leaving=$container
  sleep 2 # the proxy asks the name server twice a second, and a new replica whether it is ready
  retire "$container"
  before= leaving=
done
echo "$count of $count replicas of $service are new"
case $service in service-gpu) proxy=proxy-gpu ;; *) proxy=proxy ;; esac
for container in $(docker compose ps --quiet "$proxy"); do
  running=$(docker inspect --format '{{.Image}}' "$container")
  built=$(docker image inspect --format '{{.Id}}' "$(docker inspect --format '{{.Config.Image}}' "$container")" || true)
  [ "$running" = "$built" ] ||
    echo "$proxy runs with an older image than there is; \"Updates\" in docs/operations.md says how it is replaced" >&2
done
