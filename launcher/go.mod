module aiostream-ds/launcher

go 1.21
