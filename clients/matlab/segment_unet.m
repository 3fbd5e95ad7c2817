function [result, receipt] = segment_unet(image, varargin)
%SEGMENT_UNET Segment an image with a U-Net service, from MATLAB (R2016b or later) or GNU Octave (7 or later).
%
%   labels = segment_unet(image)                    numbered objects, uint16 or uint32
%   mask = segment_unet(image, 'output', 'mask')    class of each pixel, uint8
%   p = segment_unet(image, 'output', 'probabilities')    single, height x width x classes
%   [labels, receipt] = segment_unet(...)           what was decoded, normalised and run
%
%   image is the name of a file (TIFF, PNG, JPEG, BMP, .npy) or an array of class uint8, uint16, int16, uint32, int32,
%   single or double: height x width, height x width x channels (up to 4), height x width x planes (more than 4) or
%   height x width x channels x planes, which a stack of 2 to 4 planes needs: permute(stack, [1 2 4 3]). A stack
%   comes back with its planes along the third dimension (the fourth, of probabilities).
%
%   Options: 'url' ('http://127.0.0.1:8000'), 'output', 'model', 'threshold', 'min_area', 'min_score' (least mean
%   probability of an object), 'link' (0.25: objects of neighbouring planes of a stack that overlap so much, at least,
%   have one number), 'channel', 'mirror' (true: mean of eight mirrored views), 'scale' (0.5 where objects
%   are twice as large as those that the model knows), 'pixel_size' (micrometres, or [height width]), 'timeout' (seconds
%   until the answer is of no use any more), 'respond_async' (true: as a job, which is asked for until it is done; for
%   images that take longer than a proxy waits). An empty value counts as not given.
%   Where the service wants user and password, or a key, they stand in the address: 'https://user:key@host', with %40
%   for an @ in them. A refusal is an error segment_unet:refused with the words of the service, an answer that broke off four
%   times is segment_unet:incomplete. Arrays travel as .npy, so every value is kept.
%   Needs curl, which Windows 10, macOS and Linux have.

  options = struct('url', 'http://127.0.0.1:8000', 'output', 'labels');
  known = {'url', 'output', 'model', 'threshold', 'min_area', 'min_score', 'link', 'channel', 'mirror', ...
    'scale', 'pixel_size', 'timeout', 'respond_async'};
  if mod(numel(varargin), 2) ~= 0
    error('segment_unet:options', 'options come in pairs of name and value');
  end
  for at = 1:2:numel(varargin)
    if ~any(strcmp(varargin{at}, known))
      error('segment_unet:options', 'there is no option ''%s''; there are %s', varargin{at}, strjoin(known, ', '));
    end
    value = varargin{at + 1};
    if isa(value, 'string')
      value = char(value);
    end
    if ~isempty(value)
      options.(varargin{at}) = value;
    end
  end

  folder = tempname();
  mkdir(folder);
  cleaner = onCleanup(@() remove_folder(folder));
  if ischar(image) || isa(image, 'string')
    sent = place_of(char(image));
  else
    sent = fullfile(folder, 'image.npy');
    write_npy(sent, image);
  end
  result_file = fullfile(folder, 'result.npy');
  header_file = fullfile(folder, 'headers.txt');
  base = regexprep(options.url, '/+$', '');
  for times = 1:3 % a job whose replica has ended is sent again, twice at most
    status = transfer(folder, sent, result_file, header_file, [base address(options)]);
    if status ~= 202
      break
    end
    result_of_job = [base '/jobs/' jsondecode(fileread(result_file)).id '/result?wait=50'];
    status = 409; % not done
    while status == 409
      status = transfer(folder, '', result_file, header_file, result_of_job);
      pause(status == 409);
    end
    if ~has_lost_its_replica(status, result_file)
      break
    end
  end
  if status ~= 200
    error('segment_unet:refused', '%s', reason(result_file, header_file, status, options.url));
  elseif isempty(header(header_file, 'x-unet-receipt'))
    error('segment_unet:refused', '%s is another server, or a page to log in: give the address of the service itself', ...
      shown(options.url));
  end
  result = read_npy(result_file);
  receipt = jsondecode(header(header_file, 'x-unet-receipt'));
end

function path = place_of(name)
  % Of a file as fopen finds it, in the home of ~ and on the load path too: curl looks into the folder alone.
  file = -1;
  if exist(name, 'file') == 2
    file = fopen(name);
  end
  if file < 0
    error('segment_unet:file', 'there is no file ''%s'' that can be read', name);
  end
  path = fopen(file);
  fclose(file);
end

function url = address(options)
  url = '/segment?format=npy';
  names = setdiff(fieldnames(options), {'url'});
  for at = 1:numel(names)
    value = options.(names{at});
    if islogical(value)
      value = mat2str(value);
    elseif isnumeric(value)
      value = strjoin(arrayfun(@(number) num2str(number, 15), value(:)', 'UniformOutput', false), ',');
    end
    url = [url '&' names{at} '=' sprintf('%%%02X', unicode2native(value, 'UTF-8'))]; %#ok<AGROW>
  end
end

function status = transfer(folder, sent, result_file, header_file, url)
  % Sends a file, or asks where its name is empty.
  silence_s = 600; % twice what the service takes at most unless told otherwise (UNET_DEADLINE_S)
  % All options stand in a file: no shell sees them, so blanks and signs in paths do no harm.
  config = fullfile(folder, 'curl.txt');
  file = fopen(config, 'w');
  options = {'url', url; 'output', result_file; 'dump-header', header_file; 'stderr', '-'; ...
    'write-out', '\n%{http_code}'; 'connect-timeout', '10'; 'speed-limit', '1'; 'speed-time', sprintf('%d', silence_s)};
  if ~isempty(sent)
    options = [options; {'data-binary', ['@' sent]; 'header', 'Content-Type: application/octet-stream'; ...
      'header', 'Expect:'}];
  end
  for at = 1:size(options, 1)
    value = strrep(options{at, 2}, '"', '\"');
    if ~strcmp(options{at, 1}, 'write-out')
      value = strrep(strrep(options{at, 2}, '\', '\\'), '"', '\"');
    end
    fprintf(file, '%s = "%s"\n', options{at, 1}, value);
  end
  fprintf(file, 'silent\nshow-error\n');
  fclose(file);
  command = ['curl --config "' config '"'];
  if isunix()
    command = ['LD_LIBRARY_PATH= DYLD_LIBRARY_PATH= ' command]; % MATLAB's own libraries are not the system curl's
  end
  pauses_s = 120; % of a busy service that says when to ask again, together
  patience_s = 600; % from the first time it is asked to the last
  begun = tic();
  waited_s = 0;
  breaks = 0;
  refused = 0;
  reached = isempty(sent); % who has a job has answered
  while true
    [failure, said] = system(command);
    status = str2double(regexp(said, '\d{3}\s*$', 'match', 'once'));
    words = strtrim(regexprep(said, '\d{3}\s*$', ''));
    % the connection ended in the body of the answer, or (52, 55, 56) before its status
    broke_off = failure ~= 0 && (any(status == [200 202]) || status == 0 && any(failure == [52 55 56]));
    if broke_off
      breaks = breaks + 1;
      pause_s = 0.25 * 2 ^ breaks; % half a second, then twice as long each time
      again = breaks < 4;
      reached = true;
    elseif isempty(sent) && has_lost_its_replica(status, result_file)
      again = false;
    elseif failure == 7 && reached % one that has answered may be about to be replaced
      refused = refused + 1;
      pause_s = 0.25 * 2 ^ refused;
      waited_s = waited_s + pause_s;
      again = waited_s <= pauses_s && toc(begun) + pause_s <= patience_s;
    else
      reached = reached || status > 0;
      pause_s = retry_after(status, header_file);
      waited_s = waited_s + pause_s;
      again = pause_s > 0 && waited_s <= pauses_s && toc(begun) + pause_s <= patience_s;
    end
    if ~again
      break
    end
    pause(pause_s);
  end
  if broke_off
    error('segment_unet:incomplete', 'the answer broke off 4 times; see the log of the service, and try again: %s', ...
      words);
  elseif isnan(status)
    error('segment_unet:curl', 'curl does not run, install it or put it on the PATH: %s', said);
  elseif status == 0
    error('segment_unet:unreachable', 'no service answers: %s', words);
  end
end

function seconds = retry_after(status, header_file)
  % After which a refusal asks to come again, 1 at least; 0 where there is none or it names none.
  seconds = 0;
  if status >= 400 && status ~= 409 % not done
    named = regexp(header(header_file, 'retry-after'), '^\d+\s*$', 'match', 'once');
    if ~isempty(named)
      seconds = max(1, str2double(named));
    end
  end
end

function lost = has_lost_its_replica(status, result_file)
  % Whether a job will have no result, and another replica may be luckier.
  lost = status >= 400 && ...
    ~isempty(regexp(fileread(result_file), '"type": ?"/problems/(job-lost|draining|unknown-job)"', 'once'));
end

function words = reason(result_file, header_file, status, url)
  words = fileread(result_file);
  place = header(header_file, 'location');
  try
    words = jsondecode(words).detail;
  catch % a proxy has answered
    if status == 401 && strcmp(shown(url), url)
      words = sprintf(['%s wants user and password, or a key; put them into the address, as in https://user:key@host ' ...
        '(%%40 for an @ in them); the operator of the service has them'], shown(url));
    elseif status == 401
      words = sprintf(['%s does not know the user and password, or the key, in the address; compare them with what the ' ...
        'operator of the service gave you (%%40 for an @, %%3A for a : in the user name)'], shown(url));
    elseif status == 403
      words = sprintf('%s knows who asks, and does not allow it (403); ask the operator of the service for access', ...
        shown(url));
    elseif status < 400 && ~isempty(place)
      words = sprintf('%s has moved: it answers %d and names %s; give the address there', shown(url), status, ...
        shown(strtrim(place)));
    else
      words = sprintf('the service answers %d: %s', status, words);
    end
  end
end

function value = header(header_file, name)
  % Of the answer; empty where it has none.
  value = '';
  found = regexpi(fileread(header_file), ['^' name ': *([^\r\n]*)'], 'tokens', 'once', 'lineanchors');
  if ~isempty(found)
    value = found{1};
  end
end

function url = shown(url)
  % Without user and password.
  url = regexprep(url, '^([a-zA-Z]+://)?.*@', '$1');
end

function write_npy(path, image)
  names = {'uint8', 'uint16', 'int16', 'uint32', 'int32', 'single', 'double'};
  kinds = {'|u1', '<u2', '<i2', '<u4', '<i4', '<f4', '<f8'};
  kind = kinds(strcmp(class(image), names));
  if isempty(kind)
    error('segment_unet:class', 'an image of class %s cannot be sent; convert it to one of %s', class(image), ...
      strjoin(names, ', '));
  end
  if ndims(image) == 3 && size(image, 3) > 4
    image = permute(image, [1 2 4 3]); % planes of one channel
  end
  shape = size(image);
  if numel(shape) > 4 || size(image, 3) > 4
    found = sprintf('%d x ', shape);
    error('segment_unet:shape', ['an array of %s cannot be sent; send height x width, height x width x planes, or ' ...
      'height x width x channels x planes with up to 4 channels'], found(1:end - 3));
  end
  order = 1:numel(shape);
  if numel(shape) == 4
    order = [4 1 2 3]; % the service reads planes first
  end
  shape = sprintf('%d, ', shape(order));
  header = sprintf('{''descr'': ''%s'', ''fortran_order'': False, ''shape'': (%s), }', kind{1}, shape(1:end - 2));
  header = [header repmat(' ', 1, mod(-(numel(header) + 11), 64)) sprintf('\n')];
  file = fopen(path, 'w', 'ieee-le');
  fwrite(file, [147 uint8('NUMPY') 1 0], 'uint8');
  fwrite(file, numel(header), 'uint16');
  fwrite(file, header, 'char');
  fwrite(file, permute(image, fliplr(order)), class(image)); % C order: the last axis runs fastest
  fclose(file);
end

function array = read_npy(path)
  % Format 1.0 of numpy.lib.format, C order: the last axis runs fastest, so axes are read backwards and turned.
  file = fopen(path, 'r', 'ieee-le');
  cleaner = onCleanup(@() fclose(file));
  fread(file, 8, 'uint8');
  header = fread(file, fread(file, 1, 'uint16'), 'uint8=>char')';
  kind = regexp(header, '''descr'': ''[<|]([a-z]\d)''', 'tokens', 'once');
  names = struct('u1', 'uint8', 'u2', 'uint16', 'u4', 'uint32', 'f4', 'single', 'f8', 'double');
  shape = str2double(regexp(regexp(header, '\(([\d, ]*)\)', 'match', 'once'), '\d+', 'match'));
  array = fread(file, prod(shape), ['*' names.(kind{1})]);
  array = reshape(array, fliplr(shape));
  array = permute(array, [2 1 3:numel(shape)]);
end

function remove_folder(folder)
  if exist('OCTAVE_VERSION', 'builtin')
    confirm_recursive_rmdir(false, 'local');
  end
  rmdir(folder, 's');
end
