#!/bin/sh
# Brings an application up with docker-compose and takes it down: a web server that waits for a healthy redis and a
# healthy postgres. Their images are built by `docker build` of Debian's packages, pushed to a registry, removed, and
# pulled from there by compose.
#   compose.sh FOLDER DOCKER-COMPOSE CLIENTS PACKAGES REGISTRY
# PACKAGES is where Debian's packages are unpacked, REGISTRY an address of a registry without TLS.
set -eu
folder=$1 compose=$2 clients=$3 packages=$4 registry=$5
export COMPOSE_PROJECT_NAME=shop REGISTRY="$registry"

"$clients/images.sh" "$folder" "$packages" "$registry/shop"
cp "$clients/docker-compose.yml" "$folder/docker-compose.yml"
cd "$folder"
for image in web redis postgres; do
    docker push -q "$registry/shop/$image:1"
    docker rmi "$registry/shop/$image:1" > /dev/null
done
docker image prune -f > /dev/null

$compose config -q
$compose pull -q
$compose up -d
# The web server was started last, since it waits for the others' health, and asked both before it served.
seen=$($compose exec -T web cat /tmp/seen)
echo "the web server saw: $seen"
test "$seen" = "+PONG accepting"
test "$(docker inspect -f '{{.State.Health.Status}}' shop_cache_1)" = healthy
test "$(curl --noproxy '*' -sf --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:18060/index.html)" = shop
$compose port web 80 | grep -q '127.0.0.1:18060'
$compose top cache | grep -q redis
$compose exec -T cache redis-cli set kept yes
$compose exec -T cache redis-cli save
$compose exec -T database psql -U postgres -h 127.0.0.1 -qc 'create table t (n int); insert into t values (42)' postgres
$compose ps | grep -q 'shop_web_1'
$compose ps --services --filter status=running | sort | tr '\n' ' ' | grep -q '^cache database web worker $'
$compose logs --no-color database | grep -q 'ready to accept connections'
$compose pause cache
test "$(docker inspect -f '{{.State.Status}}' shop_cache_1)" = paused
$compose unpause cache
# All but the volumes is made anew, and what the volumes hold is there again.
$compose up -d --force-recreate --renew-anon-volumes
test "$($compose exec -T database psql -U postgres -h 127.0.0.1 -Atc 'select n from t' postgres)" = 42
test "$($compose exec -T cache redis-cli get kept)" = yes
test "$($compose run --rm -T --no-deps cache redis-cli -h cache get kept)" = yes
$compose restart -t 5 web
$compose up -d --scale worker=2
test "$(docker ps -q --filter label=com.docker.compose.service=worker | wc -l)" = 2
$compose stop -t 5
test -z "$($compose ps --services --filter status=running)"
$compose down -v --rmi all
test -z "$(docker ps -aq --filter label=com.docker.compose.project=shop)"
test -z "$(docker volume ls -q --filter label=com.docker.compose.project=shop)"
test -z "$(docker network ls -q --filter label=com.docker.compose.project=shop)"
