#!/bin/sh
# Brings an application up with docker-compose and takes it down: a web server that waits for a healthy redis and a
# healthy postgres, with images made by `docker build` of this machine's own programs and their libraries.
#   compose.sh FOLDER DOCKER-COMPOSE CLIENTS
set -eu
folder=$1 compose=$2 clients=$3
postgres=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
redis=${REDIS_SERVER:-$(command -v redis-server)} redis_cli=${REDIS_CLI:-$(command -v redis-cli)}

# A program and the libraries that it is linked with, each at its own place.
take() {
    for program; do
        for file in "$program" $(ldd "$program" | grep -o '/[^ ]*'); do
            mkdir -p "$root$(dirname "$file")" && cp -L "$file" "$root$file"
        done
    done
}

context() {
    root=$folder/$1/root
    mkdir -p "$root/bin" "$root/etc" "$root/tmp" "$root/data" && chmod 1777 "$root/tmp"
    cp -L "$(command -v busybox)" "$root/bin/busybox"
    printf 'root:x:0:0:root:/:/bin/sh\npostgres:x:70:70:postgres:/data:/bin/sh\n' > "$root/etc/passwd"
    printf 'root:x:0:\npostgres:x:70:\n' > "$root/etc/group"
    printf 'FROM scratch\nCOPY root/ /\nRUN ["/bin/busybox","--install","-s","/bin"]\nENV PATH=/bin:/usr/bin\n' > "$folder/$1/Dockerfile"
}

context web
echo 'EXPOSE 80' >> "$folder/web/Dockerfile"
context redis
take "$redis" "$redis_cli"
printf 'RUN ln -sf %s /bin/redis-server && ln -sf %s /bin/redis-cli\n' "$redis" "$redis_cli" >> "$folder/redis/Dockerfile"
context postgres
take "$postgres/postgres" "$postgres/initdb" "$postgres/psql" "$postgres/pg_isready"
version=$(basename "$(dirname "$postgres")")
mkdir -p "$root/usr/share/postgresql" "$root/usr/lib/postgresql/$version" "$root/usr/share/zoneinfo"
cp -a "/usr/share/postgresql/$version" "$root/usr/share/postgresql/"
cp -a "/usr/lib/postgresql/$version/lib" "$root/usr/lib/postgresql/$version/"
printf 'ENV PATH=/bin:%s\nRUN chown postgres /data\nUSER postgres\nVOLUME /data\n' "$postgres" >> "$folder/postgres/Dockerfile"

cp "$clients/docker-compose.yml" "$folder/docker-compose.yml"
cd "$folder"
for image in web redis postgres; do docker build -q -t "e2e/$image" "$image"; done
$compose -p shop up -d
# The web server started last, since it waits for the others' health.
for i in $(seq 30); do $compose -p shop exec -T web test -e /tmp/index.html && break; done
seen=$($compose -p shop exec -T web cat /tmp/seen)
echo "the web server saw: $seen"
test "$seen" = "PONG accepting"
test "$(docker inspect -f '{{.State.Health.Status}}' shop_cache_1)" = healthy
curl -sf --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:18060/index.html | grep -q shop
$compose -p shop exec -T database psql -U postgres -h 127.0.0.1 -qc 'create table t (n int); insert into t values (42)' postgres
$compose -p shop ps | grep -q 'shop_web_1'
$compose -p shop logs --no-color database | grep -q 'ready to accept connections'
$compose -p shop restart database
$compose -p shop up -d --scale web=1
for i in $(seq 30); do $compose -p shop exec -T database pg_isready -h 127.0.0.1 && break; read -t 1 _ < /dev/zero || true; done
test "$($compose -p shop exec -T database psql -U postgres -h 127.0.0.1 -Atc 'select n from t' postgres)" = 42
$compose -p shop down -v
test -z "$(docker ps -aq --filter label=com.docker.compose.project=shop)"
test -z "$(docker volume ls -q --filter label=com.docker.compose.project=shop)"
